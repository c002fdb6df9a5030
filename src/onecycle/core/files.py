"""Write files whole or not at all, with a checksum for JSON, and lock them between processes."""

import json
import os
import secrets
import weakref
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from onecycle.errors import OutputError

LOCKS_SUPPORTED = find_spec("fcntl") is not None  # False on Windows: every lock is granted there


@contextmanager
def atomic_write(path: Path) -> Generator[BinaryIO]:
    """Open a temporary file beside `path` that replaces it in one step when the block ends without an error.

    After a kill, or with two writers at once, the file is complete or not there. Raises OutputError, naming `path`, if
    it cannot be written.
    """
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = temporary.open("xb+")  # the umask decides who may read it, unlike for files of tempfile
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        with file:
            yield file
            flush_to_disk(file)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """Return an unused path in `path`'s folder, for what is going to replace `path`."""
    return path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"


def flush_to_disk(file: BinaryIO) -> None:
    """Make what was written to `file` survive a power cut."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut. Does nothing on Windows, which cannot open folders."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> OutputError:
    """Return the error for a path that could not be written, with the system's reason."""
    reason = error.strerror or str(error)
    return OutputError(f"{path}: cannot be written ({reason}); choose a folder that you may write to")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as JSON with their SHA-256 to `path`, atomically."""
    write_text(path, with_checksum(values))


def read_json(path: Path) -> dict[str, Any]:
    """Return what `write_json` wrote. Raises OSError, or ValueError if the content is anything else."""
    return verify_checksum(path.read_bytes())


def with_checksum(values: Mapping[str, Any]) -> str:
    """Return `values` as JSON text that ends with their SHA-256.

    Equal values give equal text, so `verify_checksum` finds any change.
    """
    checksum = sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return json.dumps({**values, "sha256": checksum}, indent=1, allow_nan=False) + "\n"


def verify_checksum(text: str | bytes) -> dict[str, Any]:
    """Return the values of a text that `with_checksum` made. Raises ValueError for any other text."""
    text = text.decode() if isinstance(text, bytes) else text
    try:
        values: Any = json.loads(text)
        if not isinstance(values, dict) or "sha256" not in values:
            raise ValueError("it has no SHA-256")
        del values["sha256"]
        is_unchanged = with_checksum(values) == text
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not is_unchanged:
        raise ValueError("it does not have the SHA-256 that it says: it is damaged, or was edited")
    return values


class Lock:
    """A lock between processes on the file `path`, held until `release`, or until this object or the process is gone.

    A shared lock excludes exclusive locks only.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor
        self._close = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def acquire(cls, path: Path, shared: bool = False, wait: bool = True) -> "Lock | None":
        """Lock `path`; the file is created if needed.

        Returns None if its folder is missing or, without `wait`, if another process has the lock. Raises OutputError if
        `path` cannot be locked.
        """
        while True:
            try:
                lock = cls(path, os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
            except FileNotFoundError:
                return None
            except OSError as error:
                raise unwritable(path, error) from error
            try:
                if not _flock(lock._descriptor, shared, wait):
                    lock.release()
                    return None
                if os.path.samestat(os.fstat(lock._descriptor), path.stat()):
                    return lock
            except FileNotFoundError:  # its last owner removed it while this one waited: there may be a new one
                pass
            except OSError as error:  # a network folder without locks
                raise unwritable(path, error) from error
            lock.release()

    def write_pid(self) -> None:
        """Write this process's id into the file, where `owner_pid` finds it."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, str(os.getpid()).encode())

    @classmethod
    def owner_pid(cls, path: Path) -> int | None:
        """Return the process id that the lock's owner wrote, or None if nobody holds the lock or wrote one."""
        try:
            descriptor = os.open(path, os.O_RDONLY)  # never creates the file
        except OSError:
            return None
        try:
            return None if _flock(descriptor, shared=True, wait=False) else int(os.read(descriptor, 20))
        except (OSError, ValueError):
            return None
        finally:
            os.close(descriptor)

    def release(self, remove: bool = False) -> None:
        """Release the lock. `remove` deletes the file before, which only the owner of an exclusive lock may do."""
        if remove:
            with suppress(OSError):  # Windows keeps open files
                self.path.unlink()
        self._close()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _flock(descriptor: int, shared: bool, wait: bool) -> bool:
    """Lock an open file; return False if another process has it and `wait` is False."""
    if not LOCKS_SUPPORTED:
        return True
    import fcntl

    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    return True
