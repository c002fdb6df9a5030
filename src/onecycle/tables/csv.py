"""CSV files: read whole, or streamed with the types that the whole has."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from onecycle.tables import csv_errors
from onecycle.tables.csv_dialect import CsvFile
from onecycle.tables.numeric_text import NumericTextCounter
from onecycle.tables.table_checks import Table
from onecycle.tables.unpack import arrow_stream

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-", "#N/A")
_BLOCK = 2**22  # bytes that are streamed at a time, and the longest row where cells may have line ends


def read(file: CsvFile, text: Collection[str]) -> Table:
    """The whole of a CSV file as a table; the columns named in `text` stay text. Raises as `tables.read.read_table`."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
    import pyarrow.csv  # pyright: ignore[reportMissingTypeStubs] -- it has none

    types = dict.fromkeys(text, pa.string())
    with csv_errors.reraise_csv_errors(file):
        try:
            with file.open() as content:
                table = pyarrow.csv.read_csv(content, **_options(file, types))
        except pa.ArrowInvalid:  # maybe of line ends in cells; to look for them makes reading slower
            with file.open() as content:
                table = pyarrow.csv.read_csv(content, **_options(file, types, block=_BLOCK))
    csv_errors.check_utf8(file, table.schema.types)
    if table.num_rows:
        csv_errors.check_quotes(file, table.column(-1)[-1].as_py())
    for name, column in zip(table.column_names, table.columns, strict=True):
        tally = NumericTextCounter(file.dialect.number)
        if pa.types.is_string(column.type) and name not in text and tally.maybe(column):
            tally.add(column)
            csv_errors.check_numbers(file, name, tally)
    return table


def stream(file: CsvFile, text: Collection[str], rows: int) -> Iterator[Any]:
    """The record batches of a CSV file, of at most `rows` rows, with the types that `read` gives. Raises as it does."""
    import pyarrow.csv  # pyright: ignore[reportMissingTypeStubs] -- it has none

    with csv_errors.reraise_csv_errors(file):
        options = _options(file, _types(file, text), block=_BLOCK)
        for batch in pyarrow.csv.open_csv(arrow_stream(file.path), **options):
            for start in range(0, batch.num_rows, rows):
                yield batch.slice(start, rows)


def _types(file: CsvFile, text: Collection[str]) -> dict[str, Any]:
    """The type of each column that `read` would find, without holding the file: a pass over it, or two.

    pyarrow takes the first type of a list that fits all cells. Here each block is typed on its own, and where blocks
    differ, those types that come after theirs are tried on all blocks. Raises DataError as `read` does.
    """
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    order = [pa.null(), pa.int64(), pa.bool_(), pa.date32(), pa.time32("s"), pa.timestamp("s"), pa.timestamp("ns")]
    order += [pa.timestamp("s", "UTC"), pa.timestamp("ns", "UTC"), pa.float64(), pa.string()]
    given = dict.fromkeys(text, pa.string())
    found: dict[str, set[Any]] = {name: {pa.null()} for name in file.dialect.names}
    tallies = {name: NumericTextCounter(file.dialect.number) for name in file.dialect.names}
    end = None
    for batch in _as_text(file, file.dialect.names):
        for name, raw, column in zip(
            file.dialect.names, batch.columns, _typed(file, batch, given).columns, strict=True
        ):
            found[name].add(column.type)
            tallies[name].add(_countable(raw, column))
        end = batch.column(-1)[-1].as_py() if batch.num_rows else end
    csv_errors.check_quotes(file, end)
    latest = {name: max(map(order.index, kinds)) for name, kinds in found.items()}
    fitting = {name: order[latest[name] : -1] for name, kinds in found.items() if len(kinds - {pa.null()}) > 1}
    for batch in _as_text(file, list(fitting)) if any(fitting.values()) else ():
        for name, kinds in fitting.items():
            fitting[name] = [kind for kind in kinds if _fits(file, batch.select([name]), kind)]
    types = {name: next(iter(fitting.get(name, [])), order[-1 if name in fitting else latest[name]]) for name in found}
    for name, kind in types.items():
        if kind == pa.string() and name not in given:
            csv_errors.check_numbers(file, name, tallies[name])
    return types


def _as_text(file: CsvFile, names: list[str]) -> Iterator[Any]:
    """The record batches of the columns `names` with every cell as it is written."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
    import pyarrow.csv  # pyright: ignore[reportMissingTypeStubs] -- it has none

    options = _options(file, dict.fromkeys(names, pa.string()), block=_BLOCK, missing=(), columns=names)
    yield from pyarrow.csv.open_csv(arrow_stream(file.path), **options)


def _typed(file: CsvFile, batch: Any, types: Mapping[str, Any]) -> Table:
    """A batch of cells as they are written, read with the types that pyarrow finds in it."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
    import pyarrow.csv  # pyright: ignore[reportMissingTypeStubs] -- it has none

    written = pa.BufferOutputStream()
    how = pyarrow.csv.WriteOptions(include_header=False, delimiter=file.dialect.delimiter, quoting_style="all_valid")
    pyarrow.csv.write_csv(batch, written, how)
    options = _options(file, types, block=_BLOCK)
    options["read_options"].column_names = batch.schema.names
    return pyarrow.csv.read_csv(pa.BufferReader(written.getvalue()), **options)


def _fits(file: CsvFile, batch: Any, kind: Any) -> bool:
    """Whether all cells of a batch of one column can be read as `kind`."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    try:
        _typed(file, batch, {batch.schema.names[0]: kind})
    except pa.ArrowInvalid:
        return False
    return True


def _countable(raw: Any, column: Any) -> Any:
    """A column for `Tally.add`: numbers, or text with the missing cells missing."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
    import pyarrow.compute  # pyright: ignore[reportMissingTypeStubs] -- it has none

    if column.type in (pa.int64(), pa.float64(), pa.string()):
        return column
    pc: Any = pyarrow.compute
    return pc.if_else(column.is_valid(), pa.chunked_array([raw]), None)


def _options(
    file: CsvFile,
    types: Mapping[str, Any],
    block: int | None = None,
    missing: Sequence[str] = MISSING,
    columns: list[str] | None = None,
) -> dict[str, Any]:
    """Options for pyarrow's readers. With a `block` size, cells may have line ends wherever blocks are cut."""
    import pyarrow.csv as csv  # pyright: ignore[reportMissingTypeStubs] -- it has none

    return {
        "read_options": csv.ReadOptions(block_size=block),
        "parse_options": csv.ParseOptions(delimiter=file.dialect.delimiter, newlines_in_values=block is not None),
        "convert_options": csv.ConvertOptions(
            column_types=types,
            null_values=list(missing),
            strings_can_be_null=True,
            decimal_point=file.dialect.decimal,
            include_columns=columns,
        ),
    }
