"""How large the table or the arrays in a file are, without reading all of it."""

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from onecycle.tables.cached.arrays import array_parts, column_names, is_array_file
from onecycle.tables.files.head import csv_file
from onecycle.tables.files.read import stream_table
from onecycle.tables.files.unpack import PACKINGS, Unpacked

_PARQUET, _ARROW = (".parquet", ".pq"), (".arrow", ".feather", ".ipc")
_LOOKED_AT = 10_000  # rows
_HEAD = 2**20  # bytes
_CELL, _FLOAT = 8, 4  # bytes
_COPIES = 2  # of the table: as it was read, and its training rows


@dataclass(frozen=True)
class Shape:
    """The columns of a file, the bytes of a row in memory and, about, the number of rows.

    `as_is`: the inputs are an array that is taken as it is, such as of images; the columns are those of the target.
    """

    names: list[str]
    row_bytes: int
    rows: int
    as_is: bool = False

    @property
    def working_bytes(self) -> int:
        """About how much memory preparing it takes: the table, its training rows, and their matrix of float32."""
        return self.rows * (_COPIES * self.row_bytes + _FLOAT * len(self.names))


def shape_of(path: Path) -> Shape:
    """The shape of a file, by the footer of Parquet and Arrow, the headers of arrays, the size and head of CSV.

    Raises what reading raises, and ValueError for arrays that cannot be streamed.
    """
    name = path.name.lower()
    if is_array_file(path):
        parts = array_parts(path)
        names, as_is = column_names(parts)
        row = sum(part.dtype.itemsize * math.prod(part.shape[1:]) for part in parts)
        return Shape(names, row, parts[0].shape[0], as_is)
    if not name.endswith((*_PARQUET, *_ARROW)):
        return _of_csv(path, ".tsv" in "".join(Path(name).suffixes[-2:]))
    batch = next(stream_table(path, rows=_LOOKED_AT))
    row = max(batch.nbytes // batch.num_rows, 1)
    rows = _parquet_rows(path) if name.endswith(_PARQUET) else _arrow_rows(path)
    return Shape(batch.schema.names, row, rows or path.stat().st_size // row)


def _parquet_rows(path: Path) -> int:
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs] -- it has none

    return pq.read_metadata(path).num_rows


def _arrow_rows(path: Path) -> int | None:
    """None for a stream, which has no footer."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
    import pyarrow.dataset  # pyright: ignore[reportMissingTypeStubs] -- it has none

    try:
        return pyarrow.dataset.dataset(str(path), format="ipc").count_rows()
    except pa.ArrowException:
        return None


def _of_csv(path: Path, tabs: bool) -> Shape:
    names = csv_file(path, "\t" if tabs else None, None).dialect.names
    with Unpacked(path) as content:
        head = content.read(_HEAD)
    line = len(head) / max(head.count(b"\n"), head.count(b"\r"), 1)
    rows = path.stat().st_size * _expansion(path) / line
    return Shape(names, int(max(line, _CELL * len(names))), int(rows))


def _expansion(path: Path) -> float:
    """How many times larger the content of a file is than the file, from its first bytes."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    packing = PACKINGS.get(path.suffix.lower())
    if packing is None:
        return 1.0
    with path.open("rb") as file:
        packed = file.read(_HEAD)
    stream, found = pa.CompressedInputStream(pa.BufferReader(packed), packing), 0
    with suppress(OSError):  # it ends in the middle
        while piece := stream.read(2**16):
            found += len(piece)
    return max(found / len(packed), 1.0)
