"""Write files whole or not at all, with a checksum for JSON, and lock them between processes.

Nothing here writes through a link, and nothing is opened but regular files: no pipe, which could block, no device.
"""

import json
import os
import re
import secrets
import shutil
import stat
import weakref
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from errno import EFBIG, EINVAL, EISDIR
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from onecycle.errors import OutputError

LOCKS_SUPPORTED = find_spec("fcntl") is not None  # False on Windows: every lock is granted there
_MAX_OWN_BYTES = 2**31  # of a JSON file of ours
_MAX_PID_BYTES = 20
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp", re.DOTALL)
_NOT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)  # Windows has neither, nor O_NOFOLLOW
_NOT_FOLLOWING = getattr(os, "O_NOFOLLOW", 0)
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


# --- opening and removing ---------------------------------------------------------------------------------------------


def open_regular(path: str | Path, flags: int) -> int:
    """Return a descriptor of a regular file, for `opener` of `open`. It never waits.

    Raises OSError, whose text says what is there, for anything else.
    """
    descriptor = os.open(path, flags | _NOT_WAITING, 0o666)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    raise OSError(EISDIR if stat.S_ISDIR(mode) else EINVAL, _kind(mode), path)


def open_unlinked(path: str | Path, flags: int) -> int:
    """Return a descriptor as `open_regular` does. Raises OSError for a link too."""
    try:
        return open_regular(path, flags | _NOT_FOLLOWING)
    except OSError as error:
        if Path(path).is_symlink():
            raise OSError(error.errno, f"{describe_special(Path(path))}; no link is followed here", path) from error
        raise


def describe_special(path: Path) -> str | None:
    """Return, in words, what `path` is if it is neither a regular file nor missing: a link, a folder, a device, …"""
    words = list[str]()
    with suppress(OSError, ValueError):
        if path.is_symlink():
            words.append(f"a link to {path.readlink()}")
        if not stat.S_ISREG(mode := path.stat().st_mode):
            words.append(_kind(mode))
    return ", ".join(words) or None


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a special file")


def read_own(path: Path, max_bytes: int = _MAX_OWN_BYTES) -> bytes:
    """Return the content of a file of ours, which is no link. Raises OSError if that fails, or it is larger."""
    with open(path, "rb", opener=open_unlinked) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise OSError(EFBIG, f"more than {max_bytes:,} bytes", path)
        return file.read()


def discard(path: Path) -> None:
    """Remove a file or folder, or a link but not what it names; a folder is seen whole or not at all. Ignore errors."""
    with suppress(OSError):
        path = path.rename(_temporary_name(path))  # which `sweep` finds if this process is killed
    _remove(path)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


# --- writing ----------------------------------------------------------------------------------------------------------


@contextmanager
def atomic_write(path: Path) -> Generator[BinaryIO]:
    """Open a temporary file beside `path` that replaces it in one step when the block ends without an error.

    After a kill, or with two writers at once, the file is complete or not there. A link is replaced, not what it names.
    Raises OutputError, naming `path`, if it cannot be written, or is there and no regular file.
    """
    try:
        if path.exists() and not path.is_file():  # /dev/null would be replaced
            raise OSError(EINVAL, describe_special(path))
        with temporary_beside(path, _touch) as temporary:
            with open(temporary, "rb+", opener=open_unlinked) as file:
                yield file
                flush_to_disk(file)
            temporary.replace(path)
        sync_folder(path.parent)
    except OutputError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error


@contextmanager
def temporary_beside(path: Path, make: Callable[[Path], object]) -> Generator[Path]:
    """Yield a new file or folder in `path`'s folder, made by `make`, which is going to replace `path`.

    What killed processes left in its place is removed first. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, path.name)
    temporary, lock = _temporary_name(path), None
    try:
        while lock is None:
            make(temporary)
            lock = _lock_new(temporary)
        with lock:
            yield temporary
    finally:
        _remove(temporary)


def _lock_new(path: Path) -> AbstractContextManager[object] | None:
    """Lock what was just made, so that `sweep` does not take it for a killed process's; None if that was faster."""
    if not LOCKS_SUPPORTED:
        return nullcontext()
    with ExitStack() as stack:
        descriptor = os.open(path, os.O_RDONLY | _NOT_FOLLOWING)
        stack.callback(os.close, descriptor)
        with suppress(FileNotFoundError):
            with suppress(OSError):  # a network folder without locks, where nothing is swept either
                _flock(descriptor, shared=False, wait=True)
            return stack.pop_all() if os.path.samestat(os.fstat(descriptor), path.lstat()) else None
    return None


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files and folders that killed processes left in `folder`, or only those for `name`."""
    try:
        entries = [*folder.iterdir()] if LOCKS_SUPPORTED else []
    except OSError:
        return
    for path in entries:
        match = _TEMPORARY.fullmatch(path.name)
        if match and name in (None, match[1]) and not path.is_symlink():
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | _NOT_WAITING | _NOT_FOLLOWING)
                try:
                    if _flock(descriptor, shared=False, wait=False):  # else a live process writes it
                        _remove(path)
                finally:
                    os.close(descriptor)


def _touch(path: Path) -> None:
    path.touch(exist_ok=False)  # the umask decides who may read it, unlike for files of tempfile


def _temporary_name(path: Path) -> Path:
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
    advice = "give another path" if describe_special(path) else "choose a folder that you may write to"
    return OutputError(f"{path}: cannot be written ({reason}); {advice}")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as JSON with their SHA-256 to `path`, atomically."""
    write_text(path, with_checksum(values))


def read_json(path: Path) -> dict[str, Any]:
    """Return what `write_json` wrote. Raises OSError, or ValueError if the content is anything else."""
    return verify_checksum(read_own(path))


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
                lock = cls(path, open_unlinked(path, os.O_RDWR | os.O_CREAT))
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
        """Write this process's id into the file, where `owner_pid` finds it. Raises OutputError if it holds a text."""
        content = os.read(self._descriptor, _MAX_PID_BYTES + 1)
        if content and not (content.isdigit() and len(content) <= _MAX_PID_BYTES):
            raise OutputError(f"{self.path}: not a lock of onecycle; remove it, or give another path")
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, str(os.getpid()).encode())

    @classmethod
    def owner_pid(cls, path: Path) -> int | None:
        """Return the process id that the lock's owner wrote, or None if nobody holds the lock or wrote one."""
        try:
            descriptor = open_unlinked(path, os.O_RDONLY)  # never creates the file
        except OSError:
            return None
        try:
            return None if _flock(descriptor, shared=True, wait=False) else int(os.read(descriptor, _MAX_PID_BYTES))
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
