"""The first bytes of a file: what format they are of, and how a CSV file is written."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from onecycle.errors import DataError, FileError
from onecycle.tables.table_checks import check_names
from onecycle.tables.unpack import Unpacked, not_utf8

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
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
    b"version https://git-lfs": "a pointer of Git LFS, whose file `git lfs pull` brings",
}
_TEXTS = {  # that are no CSV
    "an HTML page": re.compile(rb"\s*<(!doctype|html|head|body)\b", re.IGNORECASE),
    "XML": re.compile(rb"\s*<\?xml\b"),
    "JSON": re.compile(rb'\s*(\[\s*\{|\{\s*("[^"]*"\s*:|\}))'),
}
_HEAD = 2**20  # bytes that are looked at
_ROWS = 100  # that are looked at for the decimal mark


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written: the names in its header, what divides its cells, and its decimal mark."""

    names: list[str]
    delimiter: str
    decimal: str

    @property
    def number(self) -> str:
        """The pattern of what pyarrow takes for a number."""
        digits, mark = "[0-9]+", re.escape(self.decimal)
        return rf"\s*[+-]?(({digits}{mark}?[0-9]*|{mark}{digits})([eE][+-]?{digits})?|(?i:inf(inity)?))\s*"


def looks_like(head: bytes) -> str | None:
    """The format that the first bytes of a file belong to, in words; None where they are those of no known one."""
    for magic, words in _MAGIC.items():
        if head.startswith(magic):
            return words
    return next((words for words, pattern in _TEXTS.items() if pattern.match(head)), None)


@dataclass(frozen=True)
class CsvFile:
    """A CSV file whose first bytes are as they should be; what is packed and larger than `max_bytes` is not read."""

    path: Path
    max_bytes: int | None
    dialect: Dialect

    def open(self) -> Unpacked:
        """The file's content from its start."""
        return Unpacked(self.path, self.max_bytes)

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """What `cells` gives for the whole file: slow, for saying what is wrong with it."""
        with io.TextIOWrapper(io.BufferedReader(self.open()), "utf-8-sig", "replace", newline="") as lines:
            longest = csv.field_size_limit() * len(self.dialect.names)  # no row that cells() can read has more
            yield from cells(iter(lambda: lines.readline(longest), ""), self.dialect.delimiter)


def csv_file(path: Path, delimiter: str | None, max_bytes: int | None) -> CsvFile:
    """Look at the first bytes of a CSV file.

    Without a `delimiter` it is the comma, or what a header without one has most of: `;`, tab or `|`. The decimal mark
    is the comma where cells are divided by `;` and the first rows have decimal commas and no decimal points.
    Raises FileError for what is damaged or no UTF-8 text; DataError for no header, no rows, and the names that
    `check_names` refuses.
    """
    head = b""
    with Unpacked(path, max_bytes) as file:
        while len(head) < _HEAD and (piece := file.read(_HEAD - len(head))):
            head += piece
    found = looks_like(head) or ("a binary file or UTF-16 text, with zero bytes" if b"\0" in head else None)
    if found:
        raise FileError(
            f"{path}: looks like {found}; expected CSV, which is text in UTF-8; save it as that, or give it the suffix "
            "of its format"
        )
    text = head.decode("utf-8-sig", "replace")
    if "\ufffd" in text[:-1] and (error := not_utf8(path)):
        raise error
    return CsvFile(path, max_bytes, _dialect(text, len(head) < _HEAD, str(path), delimiter))


def _dialect(text: str, whole: bool, name: str, delimiter: str | None) -> Dialect:
    """How the CSV file that begins with `text` is written; `whole` says that there is no more."""
    header = re.search(r"[^\r\n]+", text)
    if not header:
        raise DataError(f"{name}: no header line; expected the names of the columns in the first line")
    if delimiter is None:
        bare = re.sub(r'"[^"]*"', "", header[0])
        delimiter = max(",;\t|", key=lambda mark: (mark == "," and mark in bare, bare.count(mark)))
    rows: list[list[str]] = []
    try:
        rows.extend(row for _, row in islice(cells(io.StringIO(text, newline=""), delimiter), _ROWS))
    except csv.Error:  # a cell too long for Python; pyarrow has its own limit
        whole = False
    names = rows[0] if rows else [header[0]]
    check_names(names, name)
    points = Dialect(names, delimiter, ".")
    if all(re.fullmatch(points.number, cell) for cell in names):
        raise DataError(
            f"{name}:1: the first line is {preview(names)}, all numbers; expected a header line with the names of the "
            "columns; add one"
        )
    if whole and len(rows) == 1:
        raise DataError(f"{name}: no rows below the header; expected at least one")
    marks = Counter(_mark(cell) for row in rows[1:] for cell in row)
    return Dialect(names, delimiter, ",") if delimiter == ";" and marks[","] and not marks["."] else points


def cells(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The number of the line on which each row begins, and its cells; empty lines are no rows.

    Raises csv.Error for a cell of more than 131,072 characters.
    """
    reader, line = csv.reader(lines, delimiter=delimiter), 1
    for row in reader:
        if row:
            yield line, row
        line = reader.line_num + 1


def _mark(cell: str) -> str:
    """The decimal mark of a cell with one, else an empty string."""
    found = re.fullmatch(r"\s*[+-]?[0-9]*([.,])[0-9]+\s*", cell)
    return found[1] if found else ""


def preview(names: list[str]) -> str:
    """The first of the names, for a message."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
