"""Read a table from a file: CSV, Parquet and Arrow."""

import os
import re
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from onecycle.core.checks import check_int
from onecycle.core.reading import MAX_BYTES, open_for_reading
from onecycle.errors import DataError, FileError, did_you_mean
from onecycle.tables.columnar import read_arrow, read_parquet, stream_arrow, stream_parquet
from onecycle.tables.csv import read_csv, stream_csv
from onecycle.tables.csv_file import inspect_csv
from onecycle.tables.file_bytes import COMPRESSIONS
from onecycle.tables.normalize import normalize_table
from onecycle.tables.values import RecordBatch, Table, import_pyarrow

_CSV = {".csv": None, ".tsv": "\t"}  # suffix → delimiter, None to detect it
_PARQUET = (".parquet", ".pq")
_ARROW = (".arrow", ".feather", ".ipc")
SUFFIXES = (*_CSV, *(suffix + compression for suffix in _CSV for compression in COMPRESSIONS), *_PARQUET, *_ARROW)
_ROW_IN_MESSAGE = re.compile(r"^row (\d+)(?=: )|(?<=, first in )row (\d+), counted from 0(?=; )")


def is_table_file(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` has the suffix of a table, such as .csv, .tsv.gz, .parquet or .arrow, in any case."""
    return _suffix(Path(path)) in SUFFIXES


def read_table(path: str | os.PathLike[str], text_columns: Collection[str] = (), max_bytes: int = MAX_BYTES) -> Table:
    """Read a table from a CSV, Parquet or Arrow file.

    CSV files are UTF-8 and have the column names in the first line; the delimiter is `,`, or the most frequent of `;`,
    tab and `|` in a header without commas. Numbers, true and false, dates and times in ISO form are detected; the cells
    in `onecycle.tables.values.CSV_MISSING_MARKERS` are missing.

    Args:
        path: The file; its suffix, one of SUFFIXES, says its format.
        text_columns: Columns of a CSV file that stay text, as they are written.
        max_bytes: Most bytes that a compressed file (gz, zst, Arrow; Parquet by its footer) may take when decompressed.

    Raises:
        FileError: The file is missing, damaged, not UTF-8, of another format than its suffix says, or over `max_bytes`.
        DataError: The suffix is unsupported. There are no rows. Names are empty or not unique. A row has more or fewer
            cells than the header. A CSV column of numbers has slips (see `NumericTextCounter`). A column holds structs
            or other nested values that are not lists.
    """
    path = Path(path)
    suffix = _checked_suffix(path)
    if suffix in _PARQUET:
        table = read_parquet(path, max_bytes)
    elif suffix in _ARROW:
        table = read_arrow(path, max_bytes)
    else:
        table = read_csv(inspect_csv(path, _CSV[suffix[:4]], max_bytes), text_columns)
    return normalize_table(table, str(path))


def stream_table(
    path: str | os.PathLike[str], rows: int = 65_536, text_columns: Collection[str] = ()
) -> Iterator[RecordBatch]:
    """Yield a file's record batches of at most `rows` rows, all of one schema.

    The columns, types and errors are those of `read_table`; an error may come after valid batches. There is no limit on
    the decompressed size. The memory in use is a few blocks of 4 MiB for CSV, or the file's batches or pages. CSV types
    depend on all rows, so a CSV file is read in advance: that takes three to four times as long as `read_table`, and
    longer if blocks differ in type.
    """
    pa, _ = import_pyarrow()
    path, rows = Path(path), check_int(rows, "rows", least=1)
    suffix = _checked_suffix(path)
    if suffix in _PARQUET:
        batches = stream_parquet(path, rows)
    elif suffix in _ARROW:
        batches = stream_arrow(path)
    else:
        batches = stream_csv(inspect_csv(path, _CSV[suffix[:4]], None), text_columns, rows)
    is_empty = True
    for batch in batches:
        if batch.num_rows:
            is_empty = False
            yield from normalize_table(pa.Table.from_batches([batch]), str(path)).to_batches(max_chunksize=rows)
    if is_empty:
        raise DataError(f"{path}: no rows; expected at least one")


@contextmanager
def naming_csv_lines(path: str | os.PathLike[str]) -> Generator[None]:
    """Replace the row number in a DataError by file and line, if `path` is a CSV file."""
    try:
        yield
    except DataError as error:
        path, message = Path(path), str(error)
        row, suffix = _ROW_IN_MESSAGE.search(message), _suffix(path)[:4]
        if row is None or suffix not in _CSV:
            raise
        line_and_cells = inspect_csv(path, _CSV[suffix], None).row_at(int(row[1] or row[2]))
        if line_and_cells is not None:
            message = _ROW_IN_MESSAGE.sub(lambda _: f"{path}:{line_and_cells[0]}", message, count=1)
        raise type(error)(message) from error


def _suffix(path: Path) -> str:
    """Return the suffix in lower case, for a compressed file with the suffix before it."""
    name = Path(path.name.lower())
    return "".join(name.suffixes[-2:] if name.suffix in COMPRESSIONS else name.suffixes[-1:])


def _checked_suffix(path: Path) -> str:
    """Return the suffix. Raises FileError if the file cannot be opened, DataError for an unsupported suffix."""
    if path.is_dir():
        raise FileError(
            f"{path}: a folder; expected a file; name a file inside it, or read a folder of Parquet parts with "
            f'pyarrow.dataset.dataset("{path}") and pass that'
        )
    with open_for_reading(path):
        pass
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise DataError(
            f'{path}: unsupported table suffix "{suffix}"{did_you_mean(suffix, SUFFIXES)}; '
            f"expected one of {', '.join(SUFFIXES)}"
        )
    return suffix
