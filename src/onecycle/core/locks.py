"""Locks between processes that the system frees when their holder ends, however it ends."""

import os
import weakref
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from onecycle.core.files import unwritable

LOCKS_SUPPORTED = find_spec("fcntl") is not None  # whether locks exclude anybody


class Lock:
    """A lock on the file `path`, held until it is released or this object is gone.

    `shared` locks exclude only others that are not. Where the system has no such locks (Windows), each is granted.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor
        self._close = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def acquire(cls, path: Path, shared: bool = False, wait: bool = True) -> "Lock | None":
        """The lock, on a file that is made where it is not there.

        None where another process holds it and `wait` is not asked for, or where its folder is gone. Raises OutputError
        where `path` cannot be locked.
        """
        while True:
            try:
                lock = cls(path, os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
            except FileNotFoundError:
                return None
            except OSError as error:
                raise unwritable(path, error) from error
            try:
                if not _locked(lock._descriptor, shared, wait):
                    lock.release()
                    return None
                if os.path.samestat(os.fstat(lock._descriptor), path.stat()):
                    return lock
            except FileNotFoundError:  # its last holder removed it while this one waited: there may be a new one
                pass
            except OSError as error:  # a network folder without locks
                raise unwritable(path, error) from error
            lock.release()

    def write_pid(self) -> None:
        """Write this process's id into the file, for whoever finds it locked."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, str(os.getpid()).encode())

    @classmethod
    def holder(cls, path: Path) -> int | None:
        """The id that the holder of the lock wrote into the file; None where nobody holds it, or nothing is there."""
        try:
            descriptor = os.open(path, os.O_RDONLY)  # never makes the file
        except OSError:
            return None
        try:
            return None if _locked(descriptor, shared=True, wait=False) else int(os.read(descriptor, 20))
        except (OSError, ValueError):
            return None
        finally:
            os.close(descriptor)

    def release(self, remove: bool = False) -> None:
        """Let others have it. `remove` the file first, which only the holder of a lock that is not shared may do."""
        if remove:
            with suppress(OSError):  # Windows keeps open files
                self.path.unlink()
        self._close()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _locked(descriptor: int, shared: bool, wait: bool) -> bool:
    if not LOCKS_SUPPORTED:  # Windows
        return True
    import fcntl

    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    return True
