"""Locks between processes that the system frees when their holder ends, however it ends."""

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from onecycle.core.files import unwritable

EXCLUSIVE = find_spec("fcntl") is not None  # whether locks exclude anybody


class Lock:
    """A lock on the file `path`, which is made where it is not there.

    `shared` locks exclude only others that are not. Where the system has no such locks (Windows), each is granted.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self._file = path, file

    @classmethod
    def take(cls, path: Path, shared: bool = False, wait: bool = True) -> "Lock | None":
        """The lock; None where another process holds it and `wait` is not asked for, or its folder is gone.

        Raises OutputError where `path` cannot be locked.
        """
        while True:
            try:
                file = path.open("ab")
            except FileNotFoundError:
                return None
            except OSError as error:
                raise unwritable(path, error) from error
            try:
                if not _lock(file, shared, wait):
                    file.close()
                    return None
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return cls(path, file)
            except FileNotFoundError:  # its last holder removed it while this one waited: there may be a new one
                pass
            except BaseException as error:
                file.close()
                if isinstance(error, OSError):  # a network folder without locks
                    raise unwritable(path, error) from error
                raise
            file.close()

    def release(self, remove: bool = False) -> None:
        """Let others have it. `remove` the file first, which only the holder of a lock that is not shared may do."""
        if remove:
            with suppress(OSError):  # Windows keeps open files
                self.path.unlink()
        self._file.close()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _lock(file: IO[bytes], shared: bool, wait: bool) -> bool:
    if not EXCLUSIVE:  # Windows
        return True
    import fcntl

    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    return True
