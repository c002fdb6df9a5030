"""A CSV file: its dialect, detected from its first bytes, and the errors that name a line of it."""

import codecs
import csv
import io
import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from onecycle.errors import DataError, FileError
from onecycle.tables.file_bytes import DecompressedFile, detect_format, utf8_error
from onecycle.tables.normalize import check_names
from onecycle.tables.values import import_pyarrow

_HEAD_BYTES = 2**20  # read to detect the dialect
_HEAD_ROWS = 100  # searched for the decimal mark


@dataclass(frozen=True)
class CsvStyle:
    """How a CSV file is written: what separates cells, the decimal mark, the line ends, whether a BOM comes first."""

    delimiter: str = ","
    decimal: str = "."
    line_end: str = "\n"
    bom: bool = False


@dataclass(frozen=True)
class CsvFile:
    """A CSV file whose first bytes are valid, and its dialect.

    Attributes:
        path: The file.
        max_bytes: Most bytes to read of a compressed file; None for no limit.
        names: Column names, from the header.
        delimiter: What separates cells.
        decimal: The decimal mark.
        line_end: What ends the header line.
        bom: Whether the file begins with a byte order mark.
    """

    path: Path
    max_bytes: int | None
    names: list[str]
    delimiter: str
    decimal: str = "."
    line_end: str = "\n"
    bom: bool = False

    @property
    def style(self) -> CsvStyle:
        """How this file is written."""
        return CsvStyle(self.delimiter, self.decimal, self.line_end, self.bom)

    @property
    def number_pattern(self) -> str:
        """The regular expression of a cell that pyarrow reads as a number."""
        digits, mark = "[0-9]+", re.escape(self.decimal)
        # each text matches in one way at most: re takes the square of its length to try two
        return rf"\s*[+-]?(({digits}({mark}[0-9]*)?|{mark}{digits})([eE][+-]?{digits})?|(?i:inf(inity)?))\s*"

    def open(self) -> DecompressedFile:
        """Open the file at its start."""
        return DecompressedFile(self.path, self.max_bytes)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line and the cells of each row, the header first: slow, to find the line of an error."""
        with io.TextIOWrapper(io.BufferedReader(self.open()), "utf-8-sig", "replace", newline="") as lines:
            longest = csv.field_size_limit() * len(self.names)  # a longer row has a cell that is too long
            yield from _parse_rows(iter(lambda: lines.readline(longest), ""), self.delimiter)

    def row_at(self, index: int) -> tuple[int, list[str]] | None:
        """Return the line and the cells of a row, counted from 0 below the header; None if it cannot be found."""
        with suppress(csv.Error):
            return next(islice(self.rows(), index + 1, None), None)


def detect_csv_dialect(path: Path, delimiter: str | None, max_bytes: int | None) -> CsvFile:
    """Detect the dialect of a CSV file from its first bytes.

    Without a `delimiter` it is the comma, or the most frequent of `;`, tab and `|` in a header without commas. The
    decimal mark is the comma if the delimiter is `;` and the first rows have decimal commas and no decimal points.
    Raises FileError for a file that is damaged or not UTF-8 text; DataError for no header, no rows, and names that
    `check_names` refuses.
    """
    head = b""
    with DecompressedFile(path, max_bytes) as file:
        while len(head) < _HEAD_BYTES and (chunk := file.read(_HEAD_BYTES - len(head))):
            head += chunk
    other = detect_format(head) or ("a binary file or UTF-16 text, with zero bytes" if b"\0" in head else None)
    if other:
        raise FileError(
            f"{path}: looks like {other}; expected CSV, which is text in UTF-8; save it as CSV, or give it the suffix "
            "of its format"
        )
    text, is_whole = head.decode("utf-8-sig", "replace"), len(head) < _HEAD_BYTES
    if "\ufffd" in text[:-1] and (error := utf8_error(path)):
        raise error
    header = re.search(r"[^\r\n]+", text)
    if not header:
        raise DataError(f"{path}: no header line; expected the names of the columns in the first line")
    if delimiter is None:
        unquoted = re.sub(r'"[^"]*"', "", header[0])
        delimiter = max(",;\t|", key=lambda mark: (mark == "," and mark in unquoted, unquoted.count(mark)))
    rows: list[list[str]] = []
    try:
        rows.extend(row for _, row in islice(_parse_rows(io.StringIO(text, newline=""), delimiter), _HEAD_ROWS))
    except csv.Error:  # a cell too long for Python; pyarrow has its own limit
        is_whole = False
    names = rows[0] if rows else [header[0]]
    check_names(names, str(path))
    line_end = re.match(r"\r?\n|\r|", text[header.end() :])
    line_end = line_end[0] if line_end and line_end[0] else "\n"
    file = CsvFile(path, max_bytes, names, delimiter, line_end=line_end, bom=head.startswith(codecs.BOM_UTF8))
    if all(re.fullmatch(file.number_pattern, cell) for cell in names):
        raise DataError(
            f"{path}:1: the first line is {_preview(names)}, all numbers; expected a header line with the names of the "
            "columns; add one"
        )
    if is_whole and len(rows) == 1:
        raise DataError(f"{path}: no rows below the header; expected at least one")
    decimal = re.compile(r"\s*[+-]?[0-9]*([.,])[0-9]+\s*")
    marks = {match[1] for row in rows[1:] for cell in row if (match := decimal.fullmatch(cell))}
    return replace(file, decimal=",") if delimiter == ";" and marks == {","} else file


def _parse_rows(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each row begins, and its cells; empty lines are skipped.

    Raises csv.Error for a cell of more than 131,072 characters.
    """
    reader, line = csv.reader(lines, delimiter=delimiter), 1
    for row in reader:
        if row:
            yield line, row
        line = reader.line_num + 1


def _preview(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


@contextmanager
def csv_errors(file: CsvFile) -> Generator[None]:
    """Turn pyarrow's errors into a FileError or DataError that names the line."""
    pa, _ = import_pyarrow()
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise (
            utf8_error(file.path)
            or _row_error(file, "straddl" in reason)
            or FileError(f"{file.path}: cannot be read as CSV ({reason}); check the file, or save it as Parquet")
        ) from error


def _row_error(file: CsvFile, is_too_long: bool) -> DataError | None:
    """Return the error for the first row with another number of cells than the header, or that `is_too_long`."""
    names, line = file.names, 0
    try:
        for line, row in file.rows():
            if len(row) != len(names):
                spans_lines = any("\n" in cell for cell in row)
                advice = "is a quote left open?" if spans_lines else "check the delimiters and quotes of this row"
                return DataError(
                    f"{file.path}:{line}: {len(row)} {'cell' if len(row) == 1 else 'cells'}; expected {len(names)} "
                    f"as in the header ({_preview(names)}); {advice}"
                )
    except csv.Error:
        if is_too_long:
            return DataError(
                f"{file.path}: the row after that of line {line} has a cell of more than {csv.field_size_limit():,} "
                "characters; expected shorter ones; is a quote left open?"
            )
    return None


def check_quotes_closed(file: CsvFile, last_cell: Any) -> None:
    """Raise DataError if the quote that opens the file's last cell is not closed.

    pyarrow takes the end of the file for the end of the cell, which then holds the lines up to there.
    """
    if not isinstance(last_cell, str) or not {"\n", "\r"} & set(last_cell):
        return
    end = b""
    with file.open() as content:
        while chunk := content.read(2**20):
            end = (end + chunk)[-100:]
    if not end.rstrip(b"\r\n").endswith(b'"'):
        line = max((line for line, _ in file.rows()), default=1)
        raise DataError(
            f"{file.path}:{line}: a quote opens in this row and is not closed before the end of the file; expected a "
            "closing quote; close it, or double it if it is part of the text"
        )
