"""TableFormat: what the reader of a table format offers, and the shape of a file, which says if it fits into memory."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from onecycle.tables.csv_dialect import CsvStyle
from onecycle.tables.normalize import normalize_batches
from onecycle.tables.values import RecordBatch, Table

SAMPLE_ROWS = 10_000  # whose memory is measured
_TABLE_COPIES = 2  # in memory at once: the table as it was read, and its training rows
_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class FileShape:
    """The columns and the size of a table; the size is estimated where the file does not say it."""

    names: list[str]  # with raw_inputs those of the target only
    row_bytes: int  # in memory
    rows: int
    raw_inputs: bool = False  # the inputs are an array that is used unchanged, such as images

    @property
    def working_bytes(self) -> int:
        """About how much memory preparing it takes: the table, its training rows, and their matrix of float32."""
        return self.rows * (_TABLE_COPIES * self.row_bytes + _FLOAT32_BYTES * len(self.names))


@dataclass(frozen=True)
class TableFormat:
    """The functions that read the files of a format; `onecycle.tables.read.FORMATS` has the format of each suffix.

    Each raises FileError or DataError with a message that begins with the path: for a file without a byte
    "PATH: empty; expected …", for a damaged one where it is damaged. `read` and `stream` return the same columns, types
    and rows, and raise the same errors. Names and types are checked afterwards, by `normalize_table`.

    Attributes:
        read: Returns the table of (path, text_columns, max_bytes). The columns `text_columns` stay text exactly as
            written, if the format leaves types to the reader; some may not be in the file. FileError if the file takes
            more than `max_bytes` when decompressed.
        stream: Yields the record batches of (path, text_columns, rows), all of one schema, with no more than a few of
            them in memory. `rows` is a hint: larger batches are split afterwards.
        shape: Returns the shape of a path without reading all of it, as `sampled_shape` does.
        line_of_row: Returns the line of (path, row), with rows counted from 0, or None if it cannot be found; for
            errors in a row that are found after reading. None if the format has no lines.
        as_written: Yields all rows of (path, typed), all cells as they are written: as text, or with `typed` a column
            in a type of which each cell can be told again. None for a format that has types of its own.
        style: Returns how the file at a path is written. None if there is no choice.
    """

    read: Callable[[Path, Collection[str], int], Table]
    stream: Callable[[Path, Collection[str], int], Iterator[RecordBatch]]
    shape: Callable[[Path], FileShape]
    line_of_row: Callable[[Path, int], int | None] | None = None
    as_written: Callable[[Path, bool], Iterator[RecordBatch]] | None = None
    style: Callable[[Path], CsvStyle] | None = None


def sampled_shape(path: Path, batches: Iterator[RecordBatch], count_rows: Callable[[Path], int | None]) -> FileShape:
    """Return a shape by the first of the record batches, and the number of rows that `count_rows` returns.

    If that is None, the number is estimated by the size of the file, which is too low if it is compressed.
    """
    batch = next(normalize_batches(batches, SAMPLE_ROWS, str(path)))
    row_bytes = max(batch.nbytes // batch.num_rows, 1)
    return FileShape(batch.schema.names, row_bytes, count_rows(path) or path.stat().st_size // row_bytes)
