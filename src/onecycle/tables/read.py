"""Read a table from a file of any of the formats in FORMATS."""

import os
import re
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from onecycle.core.checks import check_int
from onecycle.core.reading import MAX_BYTES, open_for_reading
from onecycle.errors import DataError, FileError, did_you_mean
from onecycle.tables.columnar import ARROW, PARQUET
from onecycle.tables.csv import CSV, TSV
from onecycle.tables.csv_dialect import CsvStyle
from onecycle.tables.file_bytes import COMPRESSIONS
from onecycle.tables.formats import TableFormat
from onecycle.tables.normalize import check_names, normalize_batches, normalize_table
from onecycle.tables.values import RecordBatch, Table, import_pyarrow

# The format of each suffix, in lower case. A suffix in COMPRESSIONS counts together with the one before it.
FORMATS: dict[str, TableFormat] = {
    ".csv": CSV,
    ".tsv": TSV,
    **{f".csv{compression}": CSV for compression in COMPRESSIONS},
    **{f".tsv{compression}": TSV for compression in COMPRESSIONS},
    ".parquet": PARQUET,
    ".pq": PARQUET,
    ".arrow": ARROW,
    ".feather": ARROW,
    ".ipc": ARROW,
}
_ROW_IN_MESSAGE = re.compile(r"^row (\d+)(?=: )|(?<=, first in )row (\d+), counted from 0(?=; )")


def is_table_file(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` has the suffix of a table, such as .csv, .tsv.gz, .parquet or .arrow, in any case."""
    return _suffix(Path(path)) in FORMATS


def table_format(path: Path) -> TableFormat:
    """Return the format of a file. Raises FileError if it cannot be opened, DataError for an unsupported suffix."""
    if path.is_dir():
        raise FileError(
            f"{path}: a folder; expected a file; name a file inside it, or read a folder of Parquet parts with "
            f'pyarrow.dataset.dataset("{path}") and pass that'
        )
    with open_for_reading(path):
        pass
    suffix = _suffix(path)
    if suffix not in FORMATS:
        raise DataError(
            f'{path}: unsupported table suffix "{suffix}"{did_you_mean(suffix, FORMATS)}; '
            f"expected one of {', '.join(FORMATS)}"
        )
    return FORMATS[suffix]


def read_table(path: str | os.PathLike[str], text_columns: Collection[str] = (), max_bytes: int = MAX_BYTES) -> Table:
    """Read a table from a file.

    CSV files are UTF-8 and have the column names in the first line; the delimiter is `,`, or the most frequent of `;`,
    tab and `|` in a header without commas. Numbers, true and false, dates and times in ISO form are detected; the cells
    in `onecycle.tables.values.CSV_MISSING_MARKERS` are missing.

    Args:
        path: The file; its suffix, one of FORMATS, says its format.
        text_columns: Columns that stay text, as they are written, in a format without types such as CSV.
        max_bytes: Most bytes that a compressed file (gz, zst, Arrow; Parquet by its footer) may take when decompressed.

    Raises:
        FileError: The file is missing, damaged, not UTF-8, of another format than its suffix says, or over `max_bytes`.
        DataError: The suffix is unsupported. There are no rows. Names are empty or not unique. A row has more or fewer
            cells than the header. A CSV column of numbers has unparsed cells (see `NumericTextCounter`). A column holds
            structs or other nested values that are not lists.
    """
    path = Path(path)
    return normalize_table(table_format(path).read(path, text_columns, max_bytes), str(path))


def read_columns(path: Path, text_columns: Collection[str], columns: Collection[str]) -> tuple[Table, Table]:
    """Return the table as the file has it, with columns of any type, and those of `columns` as `read_table` does."""
    file_format = table_format(path)
    table = file_format.read(path, [*text_columns, *_others(file_format, path, columns)], MAX_BYTES)
    return table, _select(table, columns, path)


def stream_table(
    path: str | os.PathLike[str], rows: int = 65_536, text_columns: Collection[str] = ()
) -> Iterator[RecordBatch]:
    """Yield a file's record batches of at most `rows` rows, all of one schema.

    The columns, types and errors are those of `read_table`; an error may come after valid batches. There is no limit on
    the decompressed size. The memory in use is a few blocks of 4 MiB for CSV, or the file's batches or pages. CSV types
    depend on all rows, so a CSV file is read in advance: that takes three to four times as long as `read_table`, and
    longer if blocks differ in type.
    """
    path, rows = Path(path), check_int(rows, "rows", least=1)
    yield from normalize_batches(table_format(path).stream(path, text_columns, rows), rows, str(path))


def stream_as_written(
    path: Path, text_columns: Collection[str], columns: Collection[str], rows: int, typed: bool
) -> Iterator[tuple[Table, Table]]:
    """Yield the rows twice: with all columns as the file has them, and with `columns` as `stream_table` yields them.

    The first have the types of the file, whatever they are. Columns of a format without types, such as CSV, are text as
    it is written, or, if `typed`, of a type in which each cell can be told again. Raises as `stream_table` does.
    """
    pa, _ = import_pyarrow()
    file_format = table_format(path)
    if file_format.as_written is not None:
        take = _row_taker(file_format.as_written(path, typed), path)
        for batch in stream_table(path, rows, [*text_columns, *_others(file_format, path, columns)]):
            yield take(batch.num_rows), _select(pa.Table.from_batches([batch]), columns, path)
        return
    empty = True
    for batch in file_format.stream(path, text_columns, rows):
        table = pa.Table.from_batches([batch])
        for start in range(0, batch.num_rows, rows):
            empty, part = False, table.slice(start, rows)
            yield part, _select(part, columns, path)
    if empty:
        raise DataError(f"{path}: no rows; expected at least one")


def text_style(path: Path) -> CsvStyle | None:
    """Return how a text file such as CSV is written; None for a file of another format, or that is no table."""
    style = FORMATS[_suffix(path)].style if is_table_file(path) else None
    return None if style is None else style(path)


def _others(file_format: TableFormat, path: Path, columns: Collection[str]) -> list[str]:
    """Return the other columns of a file without types, which need not be read as anything but text."""
    return [] if file_format.as_written is None else [n for n in file_format.shape(path).names if n not in columns]


def _select(table: Table, columns: Collection[str], path: Path) -> Table:
    """Return those of the columns that the table has, as `normalize_table` does. Raises DataError as `check_names`."""
    check_names(table.column_names, str(path))
    table = table.select([name for name in table.column_names if name in columns])
    return normalize_table(table, str(path)) if table.num_columns else table


def _row_taker(batches: Iterator[RecordBatch], path: Path) -> Callable[[int], Table]:
    """Return a function that returns the next rows of the batches, as many as it is asked for."""
    pa, _ = import_pyarrow()
    rest: list[Table] = []

    def take(rows: int) -> Table:
        while sum(part.num_rows for part in rest) < rows:
            batch = next(batches, None)
            if batch is None:
                raise FileError(f"{path}: changed while it was read; read it again")
            rest.append(pa.Table.from_batches([batch]))
        table = pa.concat_tables(rest)
        rest[:] = [table.slice(rows)]
        return table.slice(0, rows)

    return take


@contextmanager
def naming_lines(path: str | os.PathLike[str]) -> Generator[None]:
    """Replace the row number in a DataError by file and line, if `path` is a table whose format has lines."""
    try:
        yield
    except DataError as error:
        path, message = Path(path), str(error)
        row, file_format = _ROW_IN_MESSAGE.search(message), FORMATS.get(_suffix(path))
        if row is None or file_format is None or file_format.line_of_row is None:
            raise
        line = file_format.line_of_row(path, int(row[1] or row[2]))
        if line is not None:
            message = _ROW_IN_MESSAGE.sub(lambda _: f"{path}:{line}", message, count=1)
        raise type(error)(message) from error


def _suffix(path: Path) -> str:
    """Return the suffix in lower case, for a compressed file with the suffix before it."""
    name = Path(path.name.lower())
    return "".join(name.suffixes[-2:] if name.suffix in COMPRESSIONS else name.suffixes[-1:])
