"""The bytes of a table file: detect their format, decompress them while reading, find what is not UTF-8."""

import codecs
import io
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from onecycle.core.reading import Budget, open_for_reading
from onecycle.errors import FileError
from onecycle.tables.values import import_pyarrow

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}  # suffix → pyarrow's name
_COMPRESSION_MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
_MAGIC = {
    _COMPRESSION_MAGIC["gzip"]: "gzip",
    _COMPRESSION_MAGIC["zstd"]: "Zstandard",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"FEA1": "the first Feather format",
    b"PK\x03\x04": "a zip archive, as Excel's .xlsx is",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "PDF",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x93NUMPY": "a NumPy array",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"version https://git-lfs": "a Git LFS pointer, whose file `git lfs pull` downloads",
}
_TEXT_FORMATS = {  # other than CSV
    "an HTML page": re.compile(rb"\s*<(!doctype|html|head|body)\b", re.IGNORECASE),
    "XML": re.compile(rb"\s*<\?xml\b"),
    "JSON": re.compile(rb'\s*(\[\s*\{|\{\s*("[^"]*"\s*:|\}))'),
}
_CHUNK_BYTES = 2**20
_LINE_ENDS = (b"\n", b"\r")  # \r counts as a line end only in a file without \n


def detect_format(head: bytes) -> str | None:
    """Return, in words, the format that a file with these first bytes has; None if it is not a known one."""
    for magic, words in _MAGIC.items():
        if head.startswith(magic):
            return words
    return next((words for words, pattern in _TEXT_FORMATS.items() if pattern.match(head)), None)


def decompressed_stream(path: Path) -> Any:
    """Return the content of `path` as a pyarrow stream, decompressed if its name ends in .gz or .zst.

    pyarrow's threads read it without the GIL, unlike a `DecompressedFile`. Raises FileError for a file that is missing,
    unreadable, empty, or not compressed as its name says.
    """
    pa, _ = import_pyarrow()
    compression = COMPRESSIONS.get(path.suffix.lower())
    magic = _COMPRESSION_MAGIC.get(compression or "", b"")
    with open_for_reading(path) as file:
        head = file.read(len(magic) or 1)
    if not head:
        raise FileError(f"{path}: empty; expected data; copy or download it again")
    if not magic.startswith(head[: len(magic)]):
        raise FileError(
            f"{path}: begins with {head!r}; expected a {compression} file, as its name says; rename it, or download it "
            "again"
        )
    file = pa.OSFile(os.fsencode(path))  # a name need not be UTF-8
    return pa.CompressedInputStream(file, compression) if compression else file


class DecompressedFile(io.RawIOBase):
    """The content of `path` as `decompressed_stream` has it, for both pyarrow's and Python's readers.

    Raises FileError as `decompressed_stream` does, and for a file that is damaged, or that is compressed and has more
    than `max_bytes` when decompressed.
    """

    def __init__(self, path: Path, max_bytes: int | None = None) -> None:
        super().__init__()
        self._path, self._position, self._compression = path, 0, COMPRESSIONS.get(path.suffix.lower())
        self._budget = Budget(path, max_bytes) if self._compression and max_bytes is not None else None
        self._stream = decompressed_stream(path)

    def readable(self) -> bool:
        return True

    def read_buffer(self, size: int) -> Any:
        """Read at most `size` bytes as a pyarrow Buffer, which pyarrow's readers take without a copy."""
        try:
            buffer = self._stream.read_buffer(size)
        except OSError as error:
            if not self._compression:
                raise FileError(f"{self._path}: cannot be read ({error}); check the disk") from error
            raise FileError(
                f"{self._path}: damaged {self._compression} after {self._position:,} unpacked bytes ({error}); "
                f"expected a whole {self._compression} file; copy or download it again"
            ) from error
        self._position += len(buffer)
        if self._budget:
            self._budget.spend(len(buffer))
        return buffer

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; returns the number of bytes read, which `read` and `readall` build on."""
        content = self.read_buffer(len(buffer)).to_pybytes()
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def utf8_error(path: Path) -> FileError | None:
    """Return the error that names the first line and byte of `path` that is not UTF-8; None if all of it is."""
    decoder, position, line_ends = codecs.getincrementaldecoder("utf-8")(), 0, Counter[bytes]()
    with DecompressedFile(path) as file:
        while True:
            chunk = file.read(_CHUNK_BYTES)
            undecoded = decoder.getstate()[0]  # the start of a character that the last chunk ended in
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line_ends.update({end: error.object[: error.start].count(end) for end in _LINE_ENDS})
                line = 1 + next((line_ends[end] for end in _LINE_ENDS if line_ends[end]), 0)
                byte, at = error.object[error.start], position - len(undecoded) + error.start
                return FileError(
                    f"{path}:{line}: byte 0x{byte:02x} at position {at:,} is not UTF-8; expected text in UTF-8; save "
                    "the file as UTF-8"
                )
            if not chunk:
                return None
            position += len(chunk)
            line_ends.update({end: chunk.count(end) for end in _LINE_ENDS})
