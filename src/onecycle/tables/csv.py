"""Read CSV files with pyarrow: whole, or streamed with the column types that the whole file has."""

import threading
import traceback
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from onecycle.errors import DataError, FileError
from onecycle.tables.csv_dialect import CsvFile, CsvStyle, check_quotes_closed, csv_errors, detect_csv_dialect
from onecycle.tables.file_bytes import COMPRESSIONS, DecompressedFile, decompressed_stream, utf8_error
from onecycle.tables.formats import FileShape, TableFormat
from onecycle.tables.values import (
    CSV_MISSING_MARKERS,
    MISSING_MARKERS,
    ChunkedArray,
    DataType,
    RecordBatch,
    Table,
    import_pyarrow,
)

BLOCK_BYTES = 2**22  # read at a time by streaming, and the longest row if cells have line ends
_RELEASE_SECONDS = 5  # at most; microseconds are common
_MOSTLY = 0.9  # of the cells, and of the distinct values, that are numbers in a column of numbers with unparsed cells
_MAX_UNPARSED = 10  # distinct values that are not numbers
_ENOUGH_VALUES = 1000  # rows to look for distinct numbers in, at a time
_SAMPLES, _SAMPLE_ROWS = 16, 64
_SHAPE_BYTES, _MIN_CELL_BYTES = 2**20, 8  # read to estimate a file's shape; least memory of a cell


def read_csv(path: Path, text_columns: Collection[str], max_bytes: int, delimiter: str | None = None) -> Table:
    """Read a CSV file; `text_columns` stay text, and without a `delimiter` it is detected.

    Raises as `onecycle.tables.read.read_table` does.
    """
    pa, _ = import_pyarrow()
    file = detect_csv_dialect(path, delimiter, max_bytes)
    types = dict.fromkeys(text_columns, pa.string())
    with csv_errors(file):
        try:
            table = _read_whole(file, _options(file, types, text_columns=text_columns))
        except pa.ArrowInvalid:  # perhaps of line ends in cells; to allow them makes reading slower
            table = _read_whole(file, _options(file, types, BLOCK_BYTES, text_columns=text_columns))
    table = _with_large_integers(file, table, text_columns)
    if any(map(pa.types.is_binary, table.schema.types)):  # which pyarrow makes of cells that are not UTF-8
        raise utf8_error(file.path) or FileError(f"{file.path}: changed while it was read; read it again")
    if table.num_rows:
        check_quotes_closed(file, table.column(-1)[-1].as_py())
    table = _null_missing_texts(table, text_columns)
    for name, column in zip(table.column_names, table.columns, strict=True):
        counter = NumericTextCounter(file.number_pattern)
        if pa.types.is_string(column.type) and name not in types and counter.may_be_mostly_numbers(column):
            counter.add(column)
            _check_no_unparsed(file, name, counter)
    return table


def stream_csv(
    path: Path, text_columns: Collection[str], rows: int, delimiter: str | None = None
) -> Iterator[RecordBatch]:
    """Yield record batches of at most `rows` rows, with the types that `read_csv` returns. Raises as it does."""
    file = detect_csv_dialect(path, delimiter, None)
    with csv_errors(file):
        options = _options(file, _column_types(file, text_columns), BLOCK_BYTES, text_columns=text_columns)
        for block in _pyarrow_csv().open_csv(decompressed_stream(file.path), **options):
            block = _null_missing_texts(block, text_columns)
            for start in range(0, block.num_rows, rows):
                yield block.slice(start, rows)


def csv_shape(path: Path, delimiter: str | None = None) -> FileShape:
    """Return the shape by the size and the first bytes of a file. Raises as `read_csv` does for these."""
    names = detect_csv_dialect(path, delimiter, None).names
    with DecompressedFile(path) as content:
        head = content.read(_SHAPE_BYTES)
    line_bytes = len(head) / max(head.count(b"\n"), head.count(b"\r"), 1)
    compression = COMPRESSIONS.get(path.suffix.lower())
    compressed = head if compression is None else import_pyarrow()[0].compress(head, codec=compression)
    rows = path.stat().st_size * max(len(head) / len(compressed), 1) / line_bytes
    return FileShape(names, int(max(line_bytes, _MIN_CELL_BYTES * len(names))), int(rows))


def csv_line_of_row(path: Path, row: int, delimiter: str | None = None) -> int | None:
    """Return the line of a row, counted from 0 below the header; None if it cannot be found."""
    line_and_cells = detect_csv_dialect(path, delimiter, None).row_at(row)
    return None if line_and_cells is None else line_and_cells[0]


def csv_as_written(path: Path, typed: bool, delimiter: str | None = None) -> Iterator[RecordBatch]:
    """Yield all rows as text, exactly as written; empty cells are null. Raises as `stream_csv` does.

    With `typed`, which takes a pass over the file before, columns have the type int64, float64, bool, date32 or
    timestamp if each of their cells is as that type is written: "1" or "1.5", and neither "01" nor "1.50".
    """
    pa, pc = import_pyarrow()
    file = detect_csv_dialect(path, delimiter, None)
    with csv_errors(file):
        types = _exact_types(file) if typed else {}
        for block in _text_blocks(file, file.names):
            columns = [pc.if_else(pc.equal(texts, ""), None, texts) for texts in block.columns]
            for i, name in enumerate(file.names):
                if types.get(name) is not None:
                    columns[i] = _with_point(file, columns[i]).cast(types[name])
            yield pa.record_batch(columns, file.names)


def csv_style(path: Path, delimiter: str | None = None) -> CsvStyle:
    """Return how a CSV file is written. Raises as `read_csv` does for its first bytes."""
    return detect_csv_dialect(path, delimiter, None).style


CSV = TableFormat(read_csv, stream_csv, csv_shape, csv_line_of_row, csv_as_written, csv_style)
TSV = TableFormat(
    partial(read_csv, delimiter="\t"),
    partial(stream_csv, delimiter="\t"),
    partial(csv_shape, delimiter="\t"),
    partial(csv_line_of_row, delimiter="\t"),
    partial(csv_as_written, delimiter="\t"),
    partial(csv_style, delimiter="\t"),
)


def _read_whole(file: CsvFile, options: dict[str, Any]) -> Table:
    """Read the file, and wait until pyarrow's threads hold it no more.

    A thread that lets go of a Python object while Python exits is ended by force, and aborts the process.
    """
    content, released = file.open(), threading.Event()
    weakref.finalize(content, released.set)
    try:
        return _pyarrow_csv().read_csv(content, **options)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # which hold `content` too
        raise
    finally:
        content.close()
        del content
        released.wait(_RELEASE_SECONDS)


def _with_large_integers(file: CsvFile, table: Table, text_columns: Collection[str]) -> Table:
    """Return the table with whole numbers of up to 2**64 as they are, which pyarrow reads as floats from 2**63 on."""
    pa, _ = import_pyarrow()
    for i, field in enumerate(table.schema):
        if pa.types.is_float64(field.type) and field.name not in text_columns and _exceeds_int64(table.column(i)):
            options = _options(file, {field.name: pa.uint64()}, BLOCK_BYTES, columns=[field.name])
            with suppress(pa.ArrowInvalid):
                table = table.set_column(i, field.name, _read_whole(file, options).column(0))
    return table


def _exceeds_int64(floats: ChunkedArray) -> bool:
    """Return whether the largest number could be a whole one that has no place in an int64, but in an uint64."""
    _, pc = import_pyarrow()
    return 2**63 <= (pc.max(floats).as_py() or 0) <= 2**64


def _column_types(file: CsvFile, text_columns: Collection[str]) -> dict[str, DataType]:
    """Return the column types that `read_csv` infers, with one pass over the file or two, a block at a time.

    pyarrow infers the first type of a list that fits all cells. Here each block is typed on its own; if the types of
    blocks differ, those from the latest of them on are tried on all blocks. Raises DataError as `read_csv` does.
    """
    pa, _ = import_pyarrow()
    order = [pa.null(), pa.int64(), pa.bool_(), pa.date32(), pa.time32("s"), pa.timestamp("s"), pa.timestamp("ns")]
    order += [pa.timestamp("s", "UTC"), pa.timestamp("ns", "UTC"), pa.float64(), pa.string()]
    names, fixed_types = file.names, dict.fromkeys(text_columns, pa.string())
    block_types: dict[str, set[DataType]] = {name: {pa.null()} for name in names}
    counters = {name: NumericTextCounter(file.number_pattern) for name in names}
    last_cell, large = None, set[str]()
    for block in _text_blocks(file, names):
        typed_columns = _convert(file, block, fixed_types).columns
        for name, texts, column in zip(names, block.columns, typed_columns, strict=True):
            block_types[name].add(column.type)
            counters[name].add(_numbers_or_text(texts, column))
            if column.type == pa.float64() and _exceeds_int64(column):
                large.add(name)
        last_cell = block.column(-1)[-1].as_py() if block.num_rows else last_cell
    check_quotes_closed(file, last_cell)
    latest = {name: max(map(order.index, types)) for name, types in block_types.items()}
    candidates = {name: order[latest[name] : -1] for name, types in block_types.items() if len(types - {pa.null()}) > 1}
    for name in large & {name for name in names if order[latest[name]] == pa.float64()}:
        candidates[name] = [pa.uint64(), pa.float64()]
    for block in _text_blocks(file, list(candidates)) if any(candidates.values()) else ():
        for name, types in candidates.items():
            candidates[name] = [data_type for data_type in types if _fits(file, block.select([name]), data_type)]
    types = {name: next(iter(candidates.get(name, [order[latest[name]]])), pa.string()) for name in names}
    for name, data_type in types.items():
        if data_type == pa.string() and name not in fixed_types:
            _check_no_unparsed(file, name, counters[name])
    return types


def _text_blocks(file: CsvFile, names: list[str]) -> Iterator[RecordBatch]:
    """Yield the blocks of some columns, with every cell as it is written."""
    as_text = dict.fromkeys(names, import_pyarrow()[0].string())
    options = _options(file, as_text, BLOCK_BYTES, missing=(), columns=names)
    yield from _pyarrow_csv().open_csv(decompressed_stream(file.path), **options)


def _exact_types(file: CsvFile) -> dict[str, DataType]:
    """Return the types in which all cells of a column can be told again as they are written; other columns are text."""
    pa, pc = import_pyarrow()
    types = [pa.int64(), pa.float64(), pa.bool_(), pa.date32(), pa.timestamp("s"), pa.timestamp("us")]
    order = [(data_type, False) for data_type in types] + [(pa.float64(), True)]
    candidates, seen = dict.fromkeys(file.names, order), set[str]()
    for block in _text_blocks(file, file.names):
        for name, texts in zip(file.names, block.columns, strict=True):
            texts = texts.filter(pc.not_equal(texts, ""))
            if len(texts) and candidates[name]:
                seen.add(name)
                texts = _with_point(file, texts)
                few = texts.slice(0, _SAMPLE_ROWS)  # Arrow spends long on many cells that cannot be cast
                for cells in (few, texts):
                    candidates[name] = [(kind, by) for kind, by in candidates[name] if _is_exact(cells, kind, by)]
    return {name: candidates[name][0][0] for name in seen if candidates[name]}


def _is_exact(texts: Any, data_type: DataType, by_python: bool) -> bool:
    """Return whether each text is as Arrow writes a value of the type, or Python, which writes 1.0 and 1e-05."""
    pa, pc = import_pyarrow()
    try:
        values = texts.cast(data_type)
        again = values.cast(texts.type)
    except pa.ArrowInvalid:
        return False
    if by_python:
        return all(text == repr(value) for text, value in zip(texts.to_pylist(), values.to_pylist(), strict=True))
    return pc.all(pc.equal(again, texts)).as_py()


def _with_point(file: CsvFile, texts: Any) -> Any:
    """Return the texts with a decimal point for the file's decimal mark, so that one with a point is no number."""
    _, pc = import_pyarrow()
    if file.decimal == ".":
        return texts
    return pc.replace_substring(pc.replace_substring(texts, ".", "_"), file.decimal, ".")


def _convert(file: CsvFile, block: RecordBatch, types: Mapping[str, DataType]) -> Table:
    """Convert a block of text cells to `types`, and to inferred types in columns without one."""
    pa, _ = import_pyarrow()
    sink, csv = pa.BufferOutputStream(), _pyarrow_csv()
    quoted = csv.WriteOptions(include_header=False, delimiter=file.delimiter, quoting_style="all_valid")
    csv.write_csv(block, sink, quoted)
    options = _options(file, types, BLOCK_BYTES)
    options["read_options"].column_names = block.schema.names
    return csv.read_csv(pa.BufferReader(sink.getvalue()), **options)


def _fits(file: CsvFile, block: RecordBatch, data_type: DataType) -> bool:
    """Return whether all cells of a block of one column can be converted."""
    pa, _ = import_pyarrow()
    try:
        _convert(file, block, {block.schema.names[0]: data_type})
    except pa.ArrowInvalid:
        return False
    return True


def _numbers_or_text(texts: Any, typed: ChunkedArray) -> ChunkedArray:
    """Return a column for `NumericTextCounter.add`: numbers, or text in which missing cells are null."""
    pa, pc = import_pyarrow()
    if typed.type in (pa.int64(), pa.float64(), pa.string()):
        return typed
    return pc.if_else(typed.is_valid(), pa.chunked_array([texts]), None)


def _options(
    file: CsvFile,
    types: Mapping[str, DataType],
    block_bytes: int | None = None,
    missing: Sequence[str] = CSV_MISSING_MARKERS,
    columns: list[str] | None = None,
    text_columns: Collection[str] = (),
) -> dict[str, Any]:
    """Return options for pyarrow's readers. With `block_bytes`, cells may have line ends.

    With `text_columns` no text is null, until `_null_missing_texts`.
    """
    csv = _pyarrow_csv()
    return {
        "read_options": csv.ReadOptions(block_size=block_bytes),
        "parse_options": csv.ParseOptions(delimiter=file.delimiter, newlines_in_values=block_bytes is not None),
        "convert_options": csv.ConvertOptions(
            column_types=types,
            null_values=list(missing),
            strings_can_be_null=not text_columns,
            true_values=["true", "True", "TRUE"],
            false_values=["false", "False", "FALSE"],
            decimal_point=file.decimal,
            include_columns=columns,
        ),
    }


def _null_missing_texts(table: Any, text_columns: Collection[str]) -> Any:
    """Return the table with null for missing texts: of `text_columns` empty ones only."""
    pa, pc = import_pyarrow()
    for i, field in enumerate(table.schema if text_columns else ()):
        if pa.types.is_string(field.type):
            markers = [""] if field.name in text_columns else CSV_MISSING_MARKERS
            column = table.column(i)
            column = pc.if_else(pc.is_in(column, value_set=pa.array(markers)), None, column)
            table = table.set_column(i, field, column)
    return table


def _pyarrow_csv() -> Any:
    import pyarrow.csv  # pyright: ignore[reportMissingTypeStubs] -- it has none

    return pyarrow.csv


class NumericTextCounter:
    """Counts the numbers in a column of a CSV file, and the cells that are not.

    The column is *mostly numbers* if at least 90% of its cells that are not missing are numbers, at least 90% of its
    distinct values are, and at most 10 distinct values are not: these are unparsed cells then, not categories.

    Attributes:
        cells: Cells that are not missing.
        numbers: Cells that are numbers.
        unparsed: The first distinct cells that are not numbers, and the row of each.
    """

    def __init__(self, number_pattern: str) -> None:
        self._pattern = f"^(?:{number_pattern})$"
        self._rows = self.numbers = self.cells = 0
        self._values: set[str] = set()
        self.unparsed: dict[str, int] = {}

    def add(self, column: ChunkedArray) -> None:
        """Count the next cells, text or numbers."""
        pa, pc = import_pyarrow()
        if len(self.unparsed) > _MAX_UNPARSED:  # it is not mostly numbers, whatever follows
            return
        numbers = column
        if pa.types.is_string(column.type):
            is_number = pc.match_substring_regex(column, self._pattern)
            numbers, others = column.filter(is_number), column.filter(pc.invert(is_number))
            for value in others.unique().slice(0, _MAX_UNPARSED + 1):
                if value.as_py() not in self.unparsed:
                    self.unparsed[value.as_py()] = self._rows + pc.index(column, value).as_py()
        self.numbers += len(numbers) - numbers.null_count
        self.cells += len(column) - column.null_count
        self._rows += len(column)
        if len(self._values) < _ENOUGH_VALUES:
            self._values.update(map(str, numbers.slice(0, _ENOUGH_VALUES).drop_null().unique().to_pylist()))

    def may_be_mostly_numbers(self, column: ChunkedArray) -> bool:
        """Return whether at least half of a sample of `column` are numbers, which is cheap to find out."""
        pa, pc = import_pyarrow()
        step = max(_SAMPLE_ROWS, len(column) // _SAMPLES)
        samples = [column.slice(start, _SAMPLE_ROWS) for start in range(0, len(column), step)]
        cells = pa.concat_arrays([chunk for sample in samples for chunk in sample.chunks]).drop_null()
        return 2 * (pc.sum(pc.match_substring_regex(cells, self._pattern)).as_py() or 0) >= len(cells)

    @property
    def mostly_numbers(self) -> bool:
        """Whether the column is mostly numbers, and has other cells."""
        values = len(self._values) + len(self.unparsed)
        has_unparsed = 0 < len(self.unparsed) <= _MAX_UNPARSED and len(self._values) >= _MOSTLY * values
        return has_unparsed and self.numbers >= _MOSTLY * self.cells


def _check_no_unparsed(file: CsvFile, name: str, counter: NumericTextCounter) -> None:
    """Raise DataError, with the line of the first cell that is not a number, if a column is mostly numbers."""
    is_missing = {value.strip().lower() for value in counter.unparsed} <= {*MISSING_MARKERS} and file.decimal == "."
    if not counter.mostly_numbers or is_missing:  # then the column is text of numbers, as it can be in other formats
        return
    value, index = next(iter(counter.unparsed.items()))
    line, cells = file.row_at(index) or (0, [])
    is_same_cell = dict(zip(file.names, cells, strict=False)).get(name) == value
    where = f"{file.path}:{line}" if is_same_cell else f"{file.path}: row {index + 1}"
    raise DataError(
        f'{where}: column "{name}" is {value!r}; expected a number, as in {counter.numbers:,} of its '
        f"{counter.cells:,} cells; correct it, or leave it empty where the value is missing; to train on it as a "
        f'category, say so: --kind {name}=category, or in Python kinds={{"{name}": "category"}}'
    )
