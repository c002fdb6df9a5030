"""JSON that carries its own SHA-256, written in one way only, so that any change shows."""

import json
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from onecycle.errors import OutputError


@contextmanager
def atomic_write(path: Path) -> Generator[BinaryIO]:
    """Open a temporary file beside `path`; when the block ends without an error it takes `path`'s place in one step.

    A kill in the middle, or two writers at once, leave a whole file or none. An existing file is replaced.
    Raises OutputError, naming `path`, when it cannot be written.
    """
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = temporary.open("xb+")  # others may read it as the umask says, unlike what tempfile makes
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        with opened as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """A name in `path`'s folder that nobody has, for what is to take its place."""
    return path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"


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


def with_checksum(values: dict[str, Any]) -> str:
    """`values` as the text of a file, with their SHA-256 at the end."""
    own = sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    return json.dumps({**values, "sha256": own}, indent=1, allow_nan=False) + "\n"


def verify_checksum(text: str) -> dict[str, Any]:
    """The values of a text that `signed` made. Raises ValueError for any other."""
    values: Any = json.loads(text)
    if not isinstance(values, dict) or "sha256" not in values:
        raise ValueError("it has no SHA-256")
    del values["sha256"]
    if with_checksum(values) != text:
        raise ValueError("it does not have the SHA-256 that it says: it is damaged, or was edited")
    return values
