"""Arrow columns as the values that preprocessing computes with: float64 numbers, and texts that identify values."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np

from onecycle.errors import DataError

Table: TypeAlias = Any  # pyarrow comes without types: this and the next three say which of its classes is meant
RecordBatch: TypeAlias = Any
ChunkedArray: TypeAlias = Any
DataType: TypeAlias = Any
Array = np.ndarray[Any, np.dtype[Any]]
ValueKind: TypeAlias = Literal["number", "text", "bool", "date", "nothing", "other"]

# A text that is exactly one of these is missing, in a file of any format and in memory. They are what programs write
# (R, pandas, SQL, Python, Excel), not what people say: "none" and "unknown" can be categories.
CSV_MISSING_MARKERS = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "?", "-")
# Where text is read as numbers or dates no category can be lost, so any case counts, and a few words more.
MISSING_MARKERS = tuple({marker.lower(): None for marker in (*CSV_MISSING_MARKERS, "--", ".", "unknown", "missing")})
NUMBER = r"(?i)^[+-]?((\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|inf|infinity)$"
NEARLY_ALL = 0.95  # a column is read as numbers or dates if at least this fraction of its rows is
_UNITS_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def import_pyarrow() -> tuple[Any, Any]:
    """Return the modules pyarrow and pyarrow.compute, which are imported on first use."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
    import pyarrow.compute  # pyright: ignore[reportMissingTypeStubs] -- it has none

    return pa, pyarrow.compute


def value_kind(data_type: DataType) -> ValueKind:
    """Return what an Arrow type holds; "nothing" is all null, "other" are lists, bytes and the like."""
    types, data_type = import_pyarrow()[0].types, value_type(data_type)
    checks: dict[ValueKind, Sequence[Callable[[DataType], bool]]] = {
        "number": (types.is_integer, types.is_floating, types.is_decimal, types.is_duration, types.is_time),
        "text": (types.is_string, types.is_large_string, types.is_string_view),
        "bool": (types.is_boolean,),
        "date": (types.is_date, types.is_timestamp),
        "nothing": (types.is_null,),
    }
    for kind, is_types in checks.items():
        if any(is_type(data_type) for is_type in is_types):
            return kind
    return "other"


def value_type(data_type: DataType) -> DataType:
    """Return the type of the values of a dictionary type; any other type as it is."""
    return data_type.value_type if import_pyarrow()[0].types.is_dictionary(data_type) else data_type


def decode_column(column: ChunkedArray) -> ChunkedArray:
    """Return the column, or an array, with its dictionary, if it has one, replaced by values."""
    pa, _ = import_pyarrow()
    if isinstance(column, pa.Array):
        return decode_array(column)
    if not pa.types.is_dictionary(column.type):
        return column
    empty = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), pa.array([], value_type(column.type)))
    return pa.chunked_array([decode_array(chunk) for chunk in (*column.chunks, empty)])


def decode_array(array: Any) -> Any:
    """Return the array with its dictionary, if it has one, replaced by values; text gets offsets of 64 bits."""
    pa, _ = import_pyarrow()
    if not pa.types.is_dictionary(array.type):
        return array
    values, types = array.dictionary, pa.types
    if types.is_string(values.type) or types.is_string_view(values.type):
        values = values.cast(pa.large_string())
    elif types.is_binary_view(values.type):  # Arrow takes nothing from views
        values = values.cast(pa.large_binary())
    return values.take(array.indices)


def is_list_type(data_type: DataType) -> bool:
    """Return whether an Arrow type is one of lists: of any size, of a fixed one, or views."""
    types = import_pyarrow()[0].types
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(is_type(data_type) for is_type in lists)


def list_extents(array: Any) -> tuple[Array, Array]:
    """Return where in its `values` the list of each row begins, and how many items it has, 0 for null."""
    types = import_pyarrow()[0].types
    if types.is_fixed_size_list(array.type):
        starts = (array.offset + np.arange(len(array))) * array.type.list_size
        sizes = np.full(len(array), array.type.list_size)
    elif types.is_list(array.type) or types.is_large_list(array.type):
        offsets = array.offsets.to_numpy().astype(np.int64)
        starts, sizes = offsets[:-1], np.diff(offsets)
    else:
        starts, sizes = (part.to_numpy().astype(np.int64) for part in (array.offsets, array.sizes))
    is_valid = array.is_valid().to_numpy(zero_copy_only=False)
    return np.where(is_valid, starts, 0), np.where(is_valid, sizes, 0)


def list_places(array: Any) -> tuple[Any, Any, Array]:
    """Return the values that an array of lists refers to, its items' places in them, and how many each row has."""
    pa, _ = import_pyarrow()
    starts, sizes = list_extents(array)
    first = int(starts[sizes > 0].min(initial=len(array.values)))
    last = int((starts + sizes).max(initial=first))
    places = np.arange(sizes.sum()) + np.repeat(starts - first - np.cumsum(sizes) + sizes, sizes)
    return array.values.slice(first, last - first), pa.array(places), sizes


def as_numbers(column: ChunkedArray, name: str, first_row: int = 0) -> tuple[Array, Array | None]:
    """Return the float64 values and a mask of missing ones, None if there are none; infinity counts as missing.

    Times of day and durations are in seconds, booleans 0 and 1. Raises DataError for text that is not a number, with
    its row, and for a type that cannot be converted.
    """
    pa, _ = import_pyarrow()
    kind, unit = value_kind(column.type), 1
    column = column if kind == "text" else decode_column(column)
    data_type = column.type
    if kind == "text":
        column = _texts_to_numbers(column, name, first_row)
    elif kind in ("bool", "nothing"):
        column = column.cast(pa.uint8())
    elif kind != "number":
        raise DataError(f'column "{name}" holds {data_type}; expected numbers')
    elif pa.types.is_duration(data_type) or pa.types.is_time(data_type):
        column = column.cast(pa.int32() if pa.types.is_time32(data_type) else pa.int64())
        unit = _UNITS_PER_SECOND[data_type.unit]
    elif pa.types.is_decimal(data_type):
        column = column.cast(pa.float64())
    x = column.to_numpy().astype(np.float64, copy=False)  # null becomes NaN
    x = x / unit if unit > 1 else x
    with np.errstate(all="ignore"):
        if np.isfinite(x.sum()):  # one pass; if the sum overflows, the check below decides
            return x, None
    missing = ~np.isfinite(x)
    return x, missing if missing.any() else None


def _texts_to_numbers(column: ChunkedArray, name: str, first_row: int) -> ChunkedArray:
    pa, pc = import_pyarrow()
    if pa.types.is_dictionary(column.type):  # each text once: to repeat them could take any amount of memory
        numbers, done = [np.empty(0)], 0
        for values, places in dictionary_codes(column):
            texts = null_missing_markers(values)
            is_number = pc.fill_null(pc.match_substring_regex(texts, NUMBER), True)
            wrong = np.append(pc.invert(is_number).to_numpy(zero_copy_only=False), False)[places]
            if wrong.any():
                raise cell_error(column, name, done + int(wrong.argmax()), first_row, "a number")
            x = pc.if_else(is_number, texts, None).cast(pa.float64()).to_numpy(zero_copy_only=False)
            numbers.append(np.append(x, np.nan)[places])
            done += len(places)
        return pa.chunked_array([np.concatenate(numbers)])
    texts = null_missing_markers(column)
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:
        row = pc.index(pc.match_substring_regex(texts, NUMBER), False).as_py()
        raise cell_error(column, name, max(row, 0), first_row, "a number") from None


def null_missing_markers(column: ChunkedArray) -> ChunkedArray:
    """Return trimmed large strings in which MISSING_MARKERS, in any case, are null."""
    pa, pc = import_pyarrow()
    texts = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    is_missing = pc.is_in(pc.utf8_lower(texts), value_set=pa.array(MISSING_MARKERS, pa.large_string()))
    return pc.if_else(is_missing, pa.scalar(None, pa.large_string()), texts)


def cell_error(column: ChunkedArray, name: str, row: int, first_row: int, expected: str) -> DataError:
    """Return the error for a cell that cannot be converted."""
    return DataError(f'row {first_row + row}: column "{name}" is {column[row].as_py()!r}; expected {expected}')


def dictionary_codes(column: ChunkedArray) -> Iterator[tuple[Any, Array]]:
    """Yield the distinct values (a pyarrow Array) and the index of each row's value, -1 for null.

    Columns of at least 2 GiB come in chunks, as one pyarrow Array of strings holds no more, and so do columns with
    dictionaries, as pyarrow cannot join all of these.
    """
    pa, _ = import_pyarrow()
    has_dictionary = pa.types.is_dictionary(column.type)
    for chunk in column.chunks if has_dictionary or column.nbytes >= 2**31 else [column.combine_chunks()]:
        encoded = chunk if has_dictionary else chunk.dictionary_encode()
        codes = encoded.indices.cast(pa.int64()).fill_null(-1) if encoded.indices.null_count else encoded.indices
        values, codes = encoded.dictionary, codes.to_numpy(zero_copy_only=False)
        if len(values) > len(codes):  # most are not used
            used, codes = np.unique(codes, return_inverse=True)
            nulls = int(len(used) and used[0] == -1)
            values, codes = values.take(pa.array(used[nulls:])), codes - nulls
        yield values, codes


def value_counts(column: ChunkedArray) -> Iterator[tuple[Any, Array]]:
    """Yield the distinct values (a pyarrow Array) of a column, null among them, and how often each occurs."""
    pa, pc = import_pyarrow()
    if pa.types.is_dictionary(column.type):
        for values, codes in dictionary_codes(column):
            null = pa.nulls(1, values.type)
            yield pa.concat_arrays([null, values]), np.bincount(codes + 1, minlength=len(values) + 1)
    else:
        counts = pc.value_counts(column)
        yield counts.field("values"), counts.field("counts").to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class TextRule:
    """Which texts of a column of categories are the same, and which are missing; blank ones always are.

    Attributes:
        trimmed: Whether blanks around a text do not count.
        markers: Texts that stand for a missing value.
    """

    trimmed: bool = False
    markers: tuple[str, ...] = ()

    def apply(self, texts: Any) -> Any:
        """Return large strings by this rule, null where they are missing."""
        pa, pc = import_pyarrow()
        trimmed = pc.utf8_trim_whitespace(texts)
        missing = pc.equal(trimmed, "")
        texts = trimmed if self.trimmed else texts
        if self.markers:
            missing = pc.or_(missing, pc.is_in(texts, value_set=pa.array(self.markers, pa.large_string())))
        return pc.if_else(missing, pa.scalar(None, pa.large_string()), texts) if pc.any(missing).as_py() else texts


AS_WRITTEN = TextRule()  # columns that the user says are categories
USUAL_TEXTS = TextRule(trimmed=True, markers=CSV_MISSING_MARKERS[1:])


def value_texts(values: Any, rule: TextRule = AS_WRITTEN) -> Any:
    """Return large strings that identify the values of a pyarrow Array: equal values of any type have equal texts.

    1, 1.0 and Decimal("1.00") are "1", True is "true", dates are ISO; null, NaN and text that is missing by the `rule`
    are null.
    """
    pa, _ = import_pyarrow()
    values = decode_column(values)
    data_type, kind = values.type, value_kind(values.type)
    if kind == "text":
        return rule.apply(values.cast(pa.large_string()))
    if kind == "date":  # times with a zone in UTC, as everywhere
        texts = [None if text == "NaT" else text for text in values.to_numpy(zero_copy_only=False).astype(str)]
    elif pa.types.is_time(data_type):
        texts = values.cast(pa.string()).to_pylist()
    elif pa.types.is_duration(data_type):
        texts = values.cast(pa.int64()).cast(pa.string()).to_pylist()
    elif pa.types.is_float16(data_type) or pa.types.is_float32(data_type):  # the shortest text, not that of a float64
        texts = [None if text is None else number_text(float(text)) for text in values.cast(pa.string()).to_pylist()]
    else:
        texts = [None if value is None else number_text(value) for value in values.to_pylist()]
    return pa.array(texts, pa.large_string())


def number_text(value: Any) -> str | None:
    """Return the text of a number, equal for 1, 1.0 and Decimal("1.00"); "true" or "false" for a bool, None for NaN."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value != value:
        return None
    if isinstance(value, int) or (abs(value) < 2**63 and value == int(value)):
        return str(int(value))
    return repr(float(value))


def category_form(data_type: DataType) -> Literal["number", "bool", "text"]:
    """Return what values of an Arrow type are as categories; dates, times and durations are text."""
    types, data_type = import_pyarrow()[0].types, value_type(data_type)
    kind = value_kind(data_type)
    if kind == "bool" or (kind == "number" and not types.is_time(data_type) and not types.is_duration(data_type)):
        return kind
    return "text"


def column_slices(table: Table | RecordBatch, name: str, rows: int) -> Iterator[ChunkedArray]:
    """Yield a column in slices of at most `rows` rows."""
    pa, _ = import_pyarrow()
    column = table.column(name)
    column = pa.chunked_array([column]) if isinstance(column, pa.Array) else column
    for start in range(0, len(column), rows):
        yield column.slice(start, rows)


class ColumnAccumulator(Protocol):
    """Statistics of the column `name`, accumulated over slices of at most `chunk_rows` rows."""

    name: str
    chunk_rows: int

    def add(self, column: ChunkedArray) -> None:
        """Add the next rows."""
        ...


def update_all(accumulators: Sequence[ColumnAccumulator], table: Table | RecordBatch) -> None:
    """Add the rows of a table to each accumulator, in parallel over the columns."""

    def update(accumulator: ColumnAccumulator) -> None:
        for rows in column_slices(table, accumulator.name, accumulator.chunk_rows):
            accumulator.add(rows)

    in_parallel(update, accumulators)


def in_parallel(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Return `[function(item) for item in items]`, computed by a thread per processor; raises the first error."""
    workers = min(len(items), import_pyarrow()[0].cpu_count(), os.cpu_count() or 1)
    if workers < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, items))
