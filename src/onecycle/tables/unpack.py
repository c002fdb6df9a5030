"""The bytes of a file, unpacked while they are read, and where they stop being text."""

import codecs
import io
from collections import Counter
from pathlib import Path
from typing import Any

from onecycle.core.reading import Budget, open_for_reading
from onecycle.errors import FileError

PACKINGS = {".gz": "gzip", ".zst": "zstd"}
_MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
_PIECE = 2**20
_LINE_ENDS = (b"\n", b"\r")  # the second where there is none of the first


def arrow_stream(path: Path) -> Any:
    """The content of `path` as a pyarrow stream, unpacked where its name ends in .gz or .zst.

    Raises FileError for a file that is missing, unreadable, empty, or not packed as its name says.
    """
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    packing = PACKINGS.get(path.suffix.lower())
    magic = _MAGIC.get(packing or "", b"")
    with open_for_reading(path) as file:
        head = file.read(len(magic) or 1)
    if not head:
        raise FileError(f"{path}: empty; expected data; copy or download it again")
    if not magic.startswith(head[: len(magic)]):
        raise FileError(
            f"{path}: begins with {head!r}; expected a {packing} file, as its name says; rename it, or download it "
            "again"
        )
    file = pa.OSFile(str(path))
    return pa.CompressedInputStream(file, packing) if packing else file


class Unpacked(io.RawIOBase):
    """The content of `path`, as `native` has it, for pyarrow and Python to read piece by piece.

    Raises FileError where `native` does, and for a file that is damaged, or packed and of more than `max_bytes`.
    """

    def __init__(self, path: Path, max_bytes: int | None = None) -> None:
        super().__init__()
        self._path, self._count, self._packing = path, 0, PACKINGS.get(path.suffix.lower())
        self._budget = Budget(path, max_bytes) if self._packing and max_bytes is not None else None
        self._source = arrow_stream(path)

    def readable(self) -> bool:
        """True: it can be read."""
        return True

    def read_buffer(self, count: int) -> Any:
        """At most `count` bytes as a pyarrow Buffer, which pyarrow's readers take without a copy."""
        try:
            piece = self._source.read_buffer(count)
        except OSError as error:
            if not self._packing:
                raise FileError(f"{self._path}: cannot be read ({error}); check the disk") from error
            raise FileError(
                f"{self._path}: damaged {self._packing} after {self._count:,} unpacked bytes ({error}); expected a "
                f"whole {self._packing} file; copy or download it again"
            ) from error
        self._count += len(piece)
        if self._budget:
            self._budget.spend(len(piece))
        return piece

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; all there are without a `size`."""
        return self.readall() if size < 0 else self.read_buffer(size).to_pybytes()

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, or less; says how much."""
        piece = self.read_buffer(len(buffer))
        buffer[: len(piece)] = piece.to_pybytes()
        return len(piece)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._source.close()
        super().close()


def not_utf8(path: Path) -> FileError | None:
    """The error that names the first line and byte of `path` which is not UTF-8; None where all is."""
    decoder, done, ends = codecs.getincrementaldecoder("utf-8")(), 0, Counter[bytes]()
    with Unpacked(path) as file:
        while True:
            piece = file.read(_PIECE)
            kept = decoder.getstate()[0]
            try:
                decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                ends.update({end: error.object[: error.start].count(end) for end in _LINE_ENDS})
                line = 1 + next(filter(None, ends.values()), 0)
                byte, position = error.object[error.start], done - len(kept) + error.start
                return FileError(
                    f"{path}:{line}: byte 0x{byte:02x} at position {position:,} is not UTF-8; expected text in UTF-8; "
                    "save the file as UTF-8"
                )
            if not piece:
                return None
            done += len(piece)
            ends.update({end: piece.count(end) for end in _LINE_ENDS})
