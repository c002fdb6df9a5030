"""Files that hold a table: CSV, Parquet and Arrow."""

import os
import re
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onecycle.core.checks import check_int
from onecycle.core.reading import MAX_BYTES, open_for_reading
from onecycle.errors import DataError, FileError, did_you_mean
from onecycle.tables import arrow as read_arrow
from onecycle.tables import csv as read_csv
from onecycle.tables import csv_errors
from onecycle.tables.csv_dialect import csv_file
from onecycle.tables.table_checks import Table, normalized_table
from onecycle.tables.unpack import PACKINGS

_CSV = {".csv": None, ".tsv": "\t"}  # what divides the cells, where the suffix says it
_PARQUET = (".parquet", ".pq")
_ROW = re.compile(r"^row (\d+)(?=: )|(?<=, first in )row (\d+), counted from 0(?=; )")  # in a message
_ARROW = (".arrow", ".feather", ".ipc")
SUFFIXES = (*_CSV, *(kind + packing for kind in _CSV for packing in PACKINGS), *_PARQUET, *_ARROW)


def is_table_file(path: str | os.PathLike[str]) -> bool:
    """Whether the suffix of `path` is that of a table, such as .csv, .tsv.gz, .parquet or .arrow, in any case."""
    return _suffix(Path(path)) in SUFFIXES


def read_table(path: str | os.PathLike[str], text: Collection[str] = (), max_bytes: int = MAX_BYTES) -> Table:
    """Read a file that holds a table, as a pyarrow.Table.

    The suffix says what it is: .csv and .tsv (also with .gz or .zst), .parquet or .pq, .arrow, .feather or .ipc.
    CSV: UTF-8, the names of the columns in the first line; `,` divides the cells, or what a header without commas has
    most of: `;`, tab or `|`. Missing are "", NA, N/A, NaN, nan, null, NULL, None, ?, - and #N/A. Numbers, true and
    false, dates and times in ISO form are found; the columns in `text` are kept as they are written.

    Raises FileError for a file that is missing, damaged, of another format than its suffix says, or not UTF-8, and for
    a packed one (gz, zst, compressed Arrow, Parquet by its footer) that takes more than `max_bytes` (2 GiB). Raises
    DataError for another suffix; no rows; names that are missing or given twice; a row with more or fewer cells than
    the header; a CSV column of numbers with slips: at least 90% of its cells and of its distinct values are numbers,
    and at most 10 distinct values are not; and for columns of structs and other nested values that are no lists.
    """
    path = Path(path)
    suffix = _known(path)
    if suffix in _PARQUET:
        table = read_arrow.read_parquet(path, max_bytes)
    elif suffix in _ARROW:
        table = read_arrow.read_ipc(path, max_bytes)
    else:
        table = read_csv.read(csv_file(path, _CSV[suffix[:4]], max_bytes), text)
    return normalized_table(table, str(path))


def stream_table(path: str | os.PathLike[str], rows: int = 65_536, text: Collection[str] = ()) -> Iterator[Any]:
    """Read a file that holds a table piece by piece: record batches of at most `rows` rows, all of one schema.

    The columns and types are those of `read_table`, and so are the errors, some of them after batches that are good.
    There is no cap on what is unpacked. Takes memory for some blocks of 4 MiB (CSV), or the file's batches or pages.
    For CSV, whose types depend on all rows, the file is read beforehand: it takes three to four times as long as
    `read_table`, and longer where blocks differ in type.
    """
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    path, rows = Path(path), check_int(rows, "rows", least=1)
    suffix = _known(path)
    if suffix in _PARQUET:
        batches = read_arrow.stream_parquet(path, rows)
    elif suffix in _ARROW:
        batches = read_arrow.stream_ipc(path)
    else:
        batches = read_csv.stream(csv_file(path, _CSV[suffix[:4]], None), text, rows)
    empty = True
    for batch in batches:
        if batch.num_rows:
            empty = False
            yield from normalized_table(pa.Table.from_batches([batch]), str(path)).to_batches(max_chunksize=rows)
    if empty:
        raise DataError(f"{path}: no rows; expected at least one")


@contextmanager
def lines_named(path: str | os.PathLike[str]) -> Generator[None]:
    """Say file and line where a DataError says the row of a table that `path` holds, which is a CSV file."""
    try:
        yield
    except DataError as error:
        path, text = Path(path), str(error)
        found, kind = _ROW.search(text), _suffix(path)[:4]
        if found is None or kind not in _CSV:
            raise
        line = csv_errors.line_of(csv_file(path, _CSV[kind], None), int(found[1] or found[2]))
        raise type(error)(text if line is None else _ROW.sub(lambda _: f"{path}:{line}", text, count=1)) from error


def _suffix(path: Path) -> str:
    """The suffix, with the one before where it is that of a packed file, in lower case."""
    name = Path(path.name.lower())
    return "".join(name.suffixes[-2:] if name.suffix in PACKINGS else name.suffixes[-1:])


def _known(path: Path) -> str:
    """The suffix of a file that can be opened. Raises FileError where it cannot, DataError for another suffix."""
    if path.is_dir():
        raise FileError(
            f"{path}: a folder; expected a file; name a file inside it, or read a folder of Parquet parts with "
            f'pyarrow.dataset.dataset("{path}") and give that'
        )
    with open_for_reading(path):
        pass
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise DataError(
            f'{path}: the suffix "{suffix}" is none of a table{did_you_mean(suffix, SUFFIXES)}; '
            f"expected one of {', '.join(SUFFIXES)}"
        )
    return suffix
