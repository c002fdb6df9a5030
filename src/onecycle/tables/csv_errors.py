"""What is wrong with a CSV file, and on which line: slow passes over the file, made only when something is."""

import csv
from collections.abc import Generator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from onecycle.errors import DataError, FileError
from onecycle.tables.csv_dialect import CsvFile, preview
from onecycle.tables.numeric_text import NumericTextCounter
from onecycle.tables.unpack import not_utf8


@contextmanager
def reraise_csv_errors(file: CsvFile) -> Generator[None]:
    """Turn pyarrow's errors into a FileError or DataError that names the line."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise (
            not_utf8(file.path)
            or _ragged(file, "straddl" in reason)
            or FileError(f"{file.path}: cannot be read as CSV ({reason}); check the file, or save it as Parquet")
        ) from error


def check_quotes(file: CsvFile, last: Any) -> None:
    """Raises DataError where the quote before the last cell of the file, a string, is not closed again."""
    if not isinstance(last, str) or not {"\n", "\r"} & set(last):
        return
    end = b""
    with file.open() as content:
        while piece := content.read(2**20):
            end = (end + piece)[-100:]
    if not end.rstrip(b"\r\n").endswith(b'"'):
        line = max((line for line, _ in file.rows()), default=1)
        raise DataError(
            f"{file.path}:{line}: a quote opens in this row and is not closed before the end of the file; expected a "
            "closing quote; close it, or double it where it is part of the text"
        )


def check_utf8(file: CsvFile, types: list[Any]) -> None:
    """Raises FileError where a column has been read as bytes, because they are no UTF-8."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    if any(pa.types.is_binary(kind) for kind in types):
        raise not_utf8(file.path) or FileError(f"{file.path}: changed while it was read; read it again")


def check_numbers(file: CsvFile, name: str, tally: NumericTextCounter) -> None:
    """Raises DataError, with the line of the first cell that is none, where the column `name` is mostly numbers."""
    if not tally.mostly:
        return
    value, index = next(iter(tally.odd.items()))
    column = file.dialect.names.index(name)
    line, row = next(islice(file.rows(), index + 1, None), (0, []))
    where = f"{file.path}:{line}" if row[column : column + 1] == [value] else f"{file.path}: row {index + 1}"
    raise DataError(
        f'{where}: column "{name}" is {value!r}; expected a number, as in {tally.share}; correct it, or leave it '
        "empty where the value is missing; to train on it as a category, say so: "
        f'--kind {name}=category, or in Python kinds={{"{name}": "category"}}'
    )


def line_of(file: CsvFile, row: int) -> int | None:
    """The line on which a row begins; None where that cannot be found out."""
    with suppress(csv.Error):
        return next((line for line, _ in islice(file.rows(), row + 1, None)), None)  # the header is none


def _ragged(file: CsvFile, long: bool) -> DataError | None:
    """The error for the first row with another number of cells than the header has, or that is too `long`."""
    expected, line = file.dialect.names, 0
    try:
        for line, row in file.rows():
            if len(row) != len(expected):
                spread = any("\n" in cell for cell in row)
                return DataError(
                    f"{file.path}:{line}: {len(row)} {'cell' if len(row) == 1 else 'cells'}; expected {len(expected)} "
                    f"as in the header ({preview(expected)}); "
                    + ("is a quote left open?" if spread else "check the delimiters and quotes of this row")
                )
    except csv.Error:
        if long:
            return DataError(
                f"{file.path}: the row after that of line {line} has a cell of more than {csv.field_size_limit():,} "
                "characters; expected shorter ones; is a quote left open?"
            )
    return None
