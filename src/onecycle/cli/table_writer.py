"""Writes tables piece by piece, whole or not at all: Parquet, CSV, TSV or Arrow, by the name's suffix."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from onecycle.core.files import atomic_write

_ARROW, _CSV = (".arrow", ".feather"), {".csv": ",", ".tsv": "\t"}
_BETWEEN = ";"  # the items of a list, in a CSV cell


@contextmanager
def table_writer(path: Path) -> Generator[Callable[[Any], None]]:
    """A function that writes pyarrow Tables of one schema below each other to `path`, which is there when all are.

    An existing file is replaced. Raises OutputError where `path` cannot be written.
    """
    writer: Any = None

    def write(table: Any) -> None:
        nonlocal writer
        table = _writable(table, path)
        if writer is None:
            writer = _open(path, file, table.schema)
        writer.write_table(table)

    with atomic_write(path) as file:
        try:
            yield write
        finally:
            if writer is not None:
                writer.close()


def _open(path: Path, file: BinaryIO, schema: Any) -> Any:
    suffix = path.suffix.lower()
    if suffix in _CSV:
        from pyarrow import csv  # pyright: ignore[reportMissingTypeStubs] -- it has none

        quoting = csv.WriteOptions(quoting_style="needed", delimiter=_CSV[suffix])
        return csv.CSVWriter(file, schema, write_options=quoting)
    if suffix in _ARROW:
        from pyarrow import ipc  # pyright: ignore[reportMissingTypeStubs] -- it has none

        return ipc.new_file(file, schema)
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs] -- it has none

    return parquet.ParquetWriter(file, schema)


def _writable(table: Any, path: Path) -> Any:
    """The table in types that the file's format has."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    is_csv = path.suffix.lower() in _CSV
    for place, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_dictionary(kind) and (is_csv or path.suffix.lower() in _ARROW):
            column = table.column(place).cast(kind.value_type)  # each piece may have a dictionary of its own
        elif is_csv and (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            cells = table.column(place).to_pylist()
            text = [None if cell is None else _BETWEEN.join(map(_cell, cell)) for cell in cells]
            column = pa.chunked_array([pa.array(text, pa.string())])
        elif is_csv and pa.types.is_string_view(kind):
            column = table.column(place).cast(pa.large_string())
        else:
            continue
        table = table.set_column(place, pa.field(field.name, column.type), column)
    return table


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
