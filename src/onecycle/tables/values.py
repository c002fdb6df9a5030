"""Arrow columns as what preprocessing computes with: float64 numbers, and texts that stand for values."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np

from onecycle.errors import DataError

Array = np.ndarray[Any, np.dtype[Any]]
MISSING_TEXTS = ("", "?", "-", "--", ".", "na", "n/a", "#n/a", "nan", "null", "none", "unknown", "missing")
NUMBER = r"(?i)^[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|infinity)$"
NEARLY_ALL = 0.95  # of the rows: then a column is taken for what they are
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
In = TypeVar("In")
Out = TypeVar("Out")


def arrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.compute, imported when they are first needed."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
    import pyarrow.compute  # pyright: ignore[reportMissingTypeStubs] -- it has none

    return pa, pyarrow.compute


def value_kind(kind: Any) -> str:
    """What an Arrow type holds: "number", "text", "bool", "date", "nothing" (all null) or "other" (lists, bytes, …)."""
    pa, _ = arrow()
    types, kind = pa.types, plain_type(kind)
    checks: dict[str, Sequence[Callable[[Any], bool]]] = {
        "number": (types.is_integer, types.is_floating, types.is_decimal, types.is_duration, types.is_time),
        "text": (types.is_string, types.is_large_string, types.is_string_view),
        "bool": (types.is_boolean,),
        "date": (types.is_date, types.is_timestamp),
        "nothing": (types.is_null,),
    }
    return next((sort for sort, tests in checks.items() if any(test(kind) for test in tests)), "other")


def plain_type(kind: Any) -> Any:
    """The type of the values: of a dictionary's, of runs', of an extension's storage."""
    pa, _ = arrow()
    while True:
        if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def decode_column(column: Any) -> Any:
    """A ChunkedArray of `plain_type`."""
    pa, pc = arrow()
    while (kind := column.type) != plain_type(kind):
        if pa.types.is_run_end_encoded(kind):
            column = pc.run_end_decode(column)
        else:
            column = column.cast(kind.value_type if pa.types.is_dictionary(kind) else kind.storage_type)
    return column


def as_numbers(column: Any, name: str, first_row: int = 0) -> tuple[Array, Array | None]:
    """float64 of a ChunkedArray, and where a value is missing (None: nowhere); infinity counts as missing.

    Times of day and durations are seconds, booleans 0 and 1. Raises DataError for text that is no number, with its
    row, and for a column that cannot be numbers.
    """
    pa, _ = arrow()
    column = decode_column(column)
    kind, sort, unit = column.type, value_kind(column.type), 1
    if sort == "text":
        column = _texts_to_numbers(column, name, first_row)
    elif sort in ("bool", "nothing"):
        column = column.cast(pa.uint8())
    elif sort != "number":
        raise DataError(f'column "{name}" holds {kind}; expected numbers')
    elif pa.types.is_duration(kind) or pa.types.is_time(kind):
        column, unit = column.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64()), _UNITS[kind.unit]
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    x = column.to_numpy().astype(np.float64, copy=False)  # null becomes NaN
    x = x / unit if unit > 1 else x
    with np.errstate(all="ignore"):
        if np.isfinite(x.sum()):  # one pass; an overflow of the sum only leads to the closer look
            return x, None
    missing = ~np.isfinite(x)
    return x, missing if missing.any() else None


def _texts_to_numbers(column: Any, name: str, first_row: int) -> Any:
    pa, pc = arrow()
    texts = null_missing_markers(column)
    try:
        return texts.cast(pa.float64())
    except pa.ArrowInvalid:
        bad = pc.index(pc.match_substring_regex(texts, NUMBER), False).as_py()
        raise wrong_cell(column, name, max(bad, 0), first_row, "a number") from None


def null_missing_markers(column: Any) -> Any:
    """Trimmed large strings in which what people write for a missing value ("?", "n/a", blank, …) is null."""
    pa, pc = arrow()
    texts = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    marked = pc.is_in(pc.utf8_lower(texts), value_set=pa.array(MISSING_TEXTS, pa.large_string()))
    return pc.if_else(marked, pa.scalar(None, pa.large_string()), texts)


def wrong_cell(column: Any, name: str, row: int, first_row: int, expected: str) -> DataError:
    """The error for a cell that cannot be converted."""
    return DataError(f'row {first_row + row}: column "{name}" is {column[row].as_py()!r}; expected {expected}')


def dictionary_codes(column: Any) -> Iterator[tuple[Any, Array]]:
    """The distinct values (an Array) and for each row the place of its value, -1 for null; of long texts in parts."""
    pa, _ = arrow()
    if not pa.types.is_dictionary(column.type):
        column = decode_column(column)
    chunks = column.chunks if column.nbytes >= 2**31 else [column.combine_chunks()]
    for chunk in chunks:
        coded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        places = coded.indices.cast(pa.int64()).fill_null(-1) if coded.indices.null_count else coded.indices
        yield coded.dictionary, places.to_numpy(zero_copy_only=False)


def value_counts(column: Any) -> Iterator[tuple[Any, Array]]:
    """The distinct values (an Array) of a column, null among them, and how often each occurs."""
    pa, pc = arrow()
    if pa.types.is_dictionary(column.type):
        for values, places in dictionary_codes(column):
            absent = pa.nulls(1, values.type)
            counts = np.bincount(places + 1, minlength=len(values) + 1)
            yield pa.concat_arrays([absent, values]), counts
    else:
        found = pc.value_counts(decode_column(column))
        yield found.field("values"), found.field("counts").to_numpy(zero_copy_only=False)


def value_texts(values: Any) -> Any:
    """What distinct values are called, as large strings: equal values of any type have equal texts; null for missing.

    1, 1.0 and Decimal("1.00") are "1", True is "true", dates are ISO; a blank text and NaN are missing.
    """
    pa, pc = arrow()
    values = decode_column(pa.chunked_array([values])).combine_chunks()
    kind, sort = values.type, value_kind(values.type)
    if sort == "text":
        texts = values.cast(pa.large_string())
        blank = pc.equal(pc.utf8_trim_whitespace(texts), "")
        return pc.if_else(blank, pa.scalar(None, pa.large_string()), texts) if pc.any(blank).as_py() else texts
    if sort == "date":  # of zoned ones the time in UTC, as everywhere
        found = [None if text == "NaT" else text for text in values.to_numpy(zero_copy_only=False).astype(str)]
    elif pa.types.is_time(kind):
        found = values.cast(pa.string()).to_pylist()
    elif pa.types.is_duration(kind):
        found = values.cast(pa.int64()).cast(pa.string()).to_pylist()
    elif pa.types.is_float16(kind) or pa.types.is_float32(kind):  # their own shortest text, not that of a float64
        found = [None if text is None else number_text(float(text)) for text in values.cast(pa.string()).to_pylist()]
    else:
        found = [None if value is None else number_text(value) for value in values.to_pylist()]
    return pa.array(found, pa.large_string())


def number_text(value: Any) -> str | None:
    """The text of a number, the same for 1, 1.0 and Decimal("1.00"); "true" or "false" of a bool; None for NaN."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value != value:
        return None
    if isinstance(value, int) or (abs(value) < 2**63 and value == int(value)):
        return str(int(value))
    return repr(float(value))


def form_of(kind: Any) -> str:
    """What values of an Arrow type are as categories: "number", "bool", else "text"."""
    pa, _ = arrow()
    kind = plain_type(kind)
    sort = value_kind(kind)
    in_words = sort not in ("number", "bool") or pa.types.is_time(kind) or pa.types.is_duration(kind)
    return "text" if in_words else sort


def pieces(table: Any, name: str, rows: int) -> Iterator[Any]:
    """A column of a Table or RecordBatch in ChunkedArrays of at most `rows` rows."""
    pa, _ = arrow()
    column = table.column(name)
    column = pa.chunked_array([column]) if isinstance(column, pa.Array) else column
    for start in range(0, len(column), rows):
        yield column.slice(start, rows)


class ColumnConsumer(Protocol):
    """Takes in the column `name`, at most `piece` rows at a time."""

    name: str
    piece: int

    def add(self, column: Any) -> None:
        """Take in rows."""
        ...


def update_all(takers: Sequence[ColumnConsumer], table: Any) -> None:
    """Give each taker its column of a Table or RecordBatch."""

    def feed_one(taker: ColumnConsumer) -> None:
        for piece in pieces(table, taker.name, taker.piece):
            taker.add(piece)

    in_parallel(feed_one, takers)


def in_parallel(function: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
    """`[function(item) for item in items]` by as many threads as there are processors; the first error is raised."""
    items = list(items)
    workers = min(len(items), _processors())
    if workers < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(function, items))


def _processors() -> int:
    pa, _ = arrow()
    return min(pa.cpu_count(), os.cpu_count() or 1)


def with_dictionaries(table: Any) -> Any:
    """A Table whose text is in Arrow's dictionaries, so that it is hashed once and what follows works with numbers."""
    texts = [place for place, kind in enumerate(table.schema.types) if value_kind(kind) == "text"]

    def encode(place: int) -> Any:
        column = decode_column(table.column(place))
        return column if column.nbytes >= 2**31 else column.combine_chunks().dictionary_encode()

    for place, column in zip(texts, in_parallel(encode, texts), strict=True):
        table = table.set_column(place, table.schema.names[place], column)
    return table
