"""Write a file whole or not at all."""

import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from onecycle.core.errors import OutputError


@contextmanager
def atomic_write(path: Path) -> Generator[BinaryIO]:
    """Open a temporary file beside `path`; when the block ends without an error it takes `path`'s place in one step.

    A kill in the middle, or two writers at once, leave a whole file or none. An existing file is replaced.
    Raises OutputError, naming `path`, when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise unwritable(path, error) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb+") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    with atomic_write(path) as file:
        file.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut (a no-op where folders cannot be opened)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError) -> OutputError:
    """The error for a path that could not be written, with the system's reason."""
    reason = error.strerror or str(error)
    return OutputError(f"{path}: cannot be written ({reason}); choose a folder that you may write to")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
