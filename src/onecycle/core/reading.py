"""Open files for reading, with one wording for what can go wrong and one limit on what is unpacked."""

import gzip
import os
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from onecycle.core.files import describe_special, open_regular
from onecycle.errors import FileError, did_you_mean

GZIP_MAGIC = b"\x1f\x8b"
MAX_BYTES = 2 * 2**30
_CHUNK = 2**20


def utf8_text(text: str) -> str:
    """Return text that can be written: bytes of file names that are not UTF-8 become escapes such as \\xca."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class Budget:
    """The number of bytes a file may still take in memory; `slack` is added to the cap that messages name."""

    __slots__ = ("_left", "_max_bytes", "_path")

    def __init__(self, path: Path, max_bytes: int, slack: int = 0) -> None:
        self._path, self._max_bytes, self._left = path, max_bytes, max_bytes + slack

    def spend(self, count: int) -> None:
        """Subtract `count` bytes. Raises FileError if fewer are left."""
        self._left -= count
        if self._left < 0:
            raise FileError(
                f"{self._path}: takes more than the cap of {self._max_bytes:,} bytes when unpacked; if you trust "
                "this file and have the memory, raise the cap with max_bytes="
            )


@contextmanager
def open_for_reading(path: Path) -> Generator[BinaryIO]:
    """Open `path` for reading bytes.

    Raises FileError, with what to do, if that or a read in the block fails, and for anything but a regular file or a
    link to one: a pipe would wait for ever, and some devices never end.
    """
    try:
        file = open(path, "rb", opener=open_regular)  # noqa: SIM115 -- closed below, where errors are worded
    except ValueError as error:  # a null byte in the path
        raise FileError(f"{str(path)!a}: cannot be read ({error}); check the path") from error
    except OSError as error:
        raise unreadable(path, error) from error
    with file:
        try:
            yield file
        except OSError as error:
            raise unreadable(path, error) from error


def read_bytes(path: Path) -> bytes:
    """Return the content of `path`. Raises FileError as `open_for_reading` does."""
    with open_for_reading(path) as file:
        return file.read()


def read_unpacked(path: Path, max_bytes: int) -> bytearray:
    """Return the content of `path`, unpacked if it is a gzip file.

    Reading stops as soon as there are more than `max_bytes`, so a gzip bomb takes no more memory than the cap; by
    default a packed file may not unpack to more than 128 MiB or 200 times its size. Raises FileError for a file that is
    missing, empty, cut short, damaged or over the cap.
    """
    content = bytearray()
    with open_for_reading(path) as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        size = file.seek(0, os.SEEK_END)
        budget = Budget(path, effective_limit(200 * size, 2**27, max_bytes) if packed else max_bytes)
        file.seek(0)
        source = gzip.GzipFile(fileobj=file) if packed else file
        try:
            while chunk := source.read(_CHUNK):
                budget.spend(len(chunk))
                content += chunk
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FileError(
                f"{path}: damaged gzip after {len(content):,} unpacked bytes ({error}); expected a whole gzip file; "
                "copy or download it again"
            ) from error
    if not content:
        raise FileError(f"{path}: empty; expected data; copy or download it again")
    return content


def effective_limit(expected: int, minimum: int, max_bytes: int) -> int:
    """Return `max_bytes` or, if that is the default, a limit that fits the file: `expected`, but at least `minimum`.

    Anything larger is a decompression bomb.
    """
    return min(max_bytes, max(expected, minimum)) if max_bytes == MAX_BYTES else max_bytes


def unreadable(path: Path, error: OSError) -> FileError:
    """Return the error for a path that could not be opened or read, with the system's reason and what to do."""
    if path.is_dir():
        return FileError(f"{path}: a folder; expected a file; name a file inside it")
    if path.is_symlink() and not path.exists():
        return FileError(f"{path}: a link to {path.readlink()}, which is not there; expected a file: correct the link")
    if not path.is_file() and (found := describe_special(path)):
        return FileError(f"{path}: {found}; expected a file; write what it holds to one, and name that")
    if not isinstance(error, FileNotFoundError):
        return FileError(f"{path}: cannot be read ({error.strerror or error}); check that you may read this file")
    if not path.parent.is_dir():
        return FileError(f"{path}: no such file; the folder {path.parent} does not exist either; check the path")
    try:
        neighbours = [entry.name for entry in path.parent.iterdir()]
    except OSError:  # a folder that may be entered but not listed: no suggestion then
        neighbours = []
    return FileError(f"{path}: no such file{did_you_mean(path.name, neighbours) or '; check the path'}")
