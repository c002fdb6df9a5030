"""Normalize a table, whatever it was read from: check its names, and cast columns to types that are supported."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from onecycle.core.reading import MAX_BYTES
from onecycle.errors import DataError
from onecycle.tables.values import (
    ChunkedArray,
    DataType,
    RecordBatch,
    Table,
    decode_array,
    import_pyarrow,
    is_list_type,
    list_extents,
    list_places,
    value_type,
)

_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")  # pandas' name for the column of an index without a name
_LARGE_BYTES = 2**31 - 2**20  # of text, for which offsets of 32 bits are almost too small


def normalize_table(table: Table, name: str) -> Table:
    """Return `table` without views, extension types, run-end encoding and bytes, and without an unnamed pandas index.

    Raises DataError, naming `name`, for no rows, for names that `check_names` refuses, and for columns of structs,
    maps, unions, nested lists, or bytes that are not text.
    """
    try:
        column_names: list[str] = table.column_names
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: the name of a column is not UTF-8 ({error}); expected text; rename it") from error
    table = table.select([i for i, column in enumerate(column_names) if not _UNNAMED_INDEX.fullmatch(column)])
    table = table.replace_schema_metadata(None)
    check_names(table.column_names, name)
    if not table.num_rows:
        raise DataError(f"{name}: no rows; expected at least one")
    for i, column_name in enumerate(table.column_names):
        column = table.column(i)
        normalized = _normalize_column(column, f'{name}: column "{column_name}"')
        if normalized is not column:
            table = table.set_column(i, column_name, normalized)
    return table


def normalize_batches(batches: Iterable[RecordBatch], rows: int, name: str) -> Iterator[RecordBatch]:
    """Yield record batches as `normalize_table` returns them, split to at most `rows` rows, without empty ones.

    Raises DataError as it does; for no rows in any batch after the last. Raises TypeError for batches of different
    types, which are an error in the reader of the format: statistics of all batches would be wrong without a notice.
    """
    pa, _ = import_pyarrow()
    schema = None
    for batch in batches:
        if batch.num_rows:
            schema = batch.schema if schema is None else schema
            if batch.schema != schema:
                raise TypeError(f"{name}: read as batches of different types: {schema} and {batch.schema}")
            yield from normalize_table(pa.Table.from_batches([batch]), name).to_batches(max_chunksize=rows)
    if schema is None:
        raise DataError(f"{name}: no rows; expected at least one")


def check_names(column_names: Sequence[str], name: str) -> None:
    """Raise DataError, naming `name`, if there are no columns, or if column names are empty or not unique."""
    if not column_names:
        raise DataError(f"{name}: no columns; expected at least one")
    empty = next((i for i, column in enumerate(column_names) if not column.strip()), None)
    if empty is not None:
        raise DataError(
            f"{name}: column {empty + 1} of {len(column_names)} has no name; expected a name for each: name it, or "
            "leave it out (a pandas index with index=False)"
        )
    repeated = [f'"{column}"' for column, count in Counter(column_names).items() if count > 1]
    if repeated:
        raise DataError(
            f"{name}: more than one column is called {', '.join(repeated)}; expected each name once: rename them"
        )


def _normalize_column(column: ChunkedArray, where: str) -> ChunkedArray:
    """Return the column in a supported type, or the same object if it has one already."""
    pa, _ = import_pyarrow()
    target = _supported_type(column.type, where)
    size = column.nbytes if target == column.type else decoded_bytes(column)
    target = _large_type(target) if size >= _LARGE_BYTES else target
    if target == column.type:
        return column
    try:
        if size > max(MAX_BYTES, column.nbytes):
            raise DataError(
                f"{where} of type {column.type} takes more than {MAX_BYTES:,} bytes as {target}; decode a part of the "
                "rows at a time"
            )
        chunks = [_plain(chunk, where).cast(target) for chunk in column.chunks]
        column = pa.chunked_array(chunks, target)
        column.validate(full=True)
        return column
    except (pa.ArrowException, MemoryError) as error:
        if target in (pa.string(), pa.large_string()) and isinstance(error, pa.ArrowInvalid):
            raise DataError(
                f"{where} holds bytes that are not UTF-8 text; expected text or numbers; leave it out"
            ) from error
        raise DataError(
            f"{where} has type {column.type}, which pyarrow cannot convert ({error}); convert it"
        ) from error


def _supported_type(data_type: DataType, where: str) -> DataType:
    """Return the type that a column's values get: its own, if that is supported. Raises DataError if there is none."""
    pa, _ = import_pyarrow()
    types = pa.types
    if isinstance(data_type, pa.BaseExtensionType):
        return _supported_type(data_type.storage_type, where)
    if types.is_run_end_encoded(data_type):
        return _large_type(_supported_type(data_type.value_type, where))
    if types.is_dictionary(data_type):
        value = value_type(_supported_type(data_type.value_type, where))
        if not types.is_nested(value):
            return pa.dictionary(data_type.index_type, value, data_type.ordered)
    elif types.is_binary(data_type):
        return pa.string()
    bytes_or_views = (types.is_large_binary, types.is_string_view, types.is_binary_view, types.is_fixed_size_binary)
    if any(is_type(data_type) for is_type in bytes_or_views):
        return pa.large_string()
    if is_list_type(data_type):
        value = _supported_type(data_type.value_type, where)
        if not types.is_nested(value):
            is_view = types.is_list_view(data_type) or types.is_large_list_view(data_type)
            return pa.large_list(value) if is_view or value != data_type.value_type else data_type
    if types.is_decimal32(data_type) or types.is_decimal64(data_type):  # for which pyarrow lacks many functions
        return pa.decimal128(data_type.precision, data_type.scale)
    if types.is_nested(data_type) or types.is_interval(data_type) or types.is_dictionary(data_type):
        raise DataError(
            f"{where} holds values of type {data_type}; expected one number, text or date in each row, or a list of "
            "them; make its parts columns of their own, or leave it out"
        )
    return data_type


def _large_type(data_type: DataType) -> DataType:
    """Return the type with offsets of 64 bits for a supported type of text, or of lists of text."""
    pa, _ = import_pyarrow()
    if is_list_type(data_type):
        return pa.large_list(_large_type(data_type.value_type))
    return pa.large_string() if pa.types.is_string(data_type) else data_type


def _plain(array: Any, where: str) -> Any:
    """Return an array of a supported type with the values of `array`.

    Only gathers and casts of plain arrays are left to pyarrow, whose kernels for views and runs have crashed.
    """
    pa, _ = import_pyarrow()
    types, data_type = pa.types, array.type
    if isinstance(data_type, pa.BaseExtensionType):
        return _plain(array.storage, where)
    if types.is_run_end_encoded(data_type):
        values, lengths = _runs(array)
        values = _plain(values, where).cast(_supported_type(data_type, where))
        return values.take(pa.array(np.repeat(np.arange(len(lengths)), lengths)))
    if types.is_dictionary(data_type):
        values = decode_array(_plain(array.dictionary, where))
        return pa.DictionaryArray.from_arrays(array.indices, values, ordered=data_type.ordered)
    target = _supported_type(data_type, where)
    if is_list_type(data_type) and target != data_type:
        values, places, sizes = list_places(array)
        offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int64())
        return pa.LargeListArray.from_arrays(offsets, _plain(values, where).take(places), mask=array.is_null())
    return array if target == data_type else array.cast(target)


def _runs(array: Any) -> tuple[Any, Any]:
    """Return the values of a run-end encoded array, and how often each is repeated."""
    first, count = array.find_physical_offset(), array.find_physical_length()
    ends = array.run_ends.slice(first, count).to_numpy().astype(np.int64)
    return array.values.slice(first, count), np.diff(ends.clip(max=array.offset + len(array)), prepend=array.offset)


def decoded_bytes(column: Any) -> int:
    """Return about how many bytes a column or array takes as `normalize_table` returns it.

    That can be far more than it has: runs and views repeat values, and rows without a width count as a byte each.
    """
    pa, _ = import_pyarrow()
    types, data_type = pa.types, column.type
    if isinstance(column, pa.ChunkedArray):
        return sum(map(decoded_bytes, column.chunks))
    if isinstance(data_type, pa.BaseExtensionType):
        return decoded_bytes(column.storage)
    if types.is_run_end_encoded(data_type):
        values, lengths = _runs(column)
        return _repeated_bytes(values, lengths)
    if is_list_type(data_type):
        starts, sizes = list_extents(column)
        begun, ended = (np.bincount(at, minlength=len(column.values) + 1) for at in (starts, starts + sizes))
        return _repeated_bytes(column.values, np.cumsum(begun - ended)[:-1]) + 8 * len(column)
    if types.is_dictionary(data_type):
        return column.indices.nbytes + decoded_bytes(column.dictionary)
    if types.is_string_view(data_type) or types.is_binary_view(data_type):
        return _repeated_bytes(column, np.ones(len(column), np.int64))
    return max(column.nbytes, len(column)) + 8 * len(column) * types.is_fixed_size_binary(
        data_type
    )  # which gets offsets


def _repeated_bytes(values: Any, times: Any) -> int:
    """Return about how many bytes an array takes whose items are repeated so many times each."""
    pa, pc = import_pyarrow()
    types = pa.types
    if types.is_string_view(values.type) or types.is_binary_view(
        values.type
    ):  # of which each has 16 bytes, the first four of them its length
        views = values.buffers()[1]
        lengths = np.frombuffer(views or b"", np.int32)[::4][values.offset : values.offset + len(values)]
        lengths = np.where(values.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
    elif any(
        is_type(values.type)
        for is_type in (types.is_string, types.is_binary, types.is_large_string, types.is_large_binary)
    ):
        lengths = pc.fill_null(pc.binary_length(values), 0).to_numpy()
    else:
        lengths = np.broadcast_to(max(decoded_bytes(values) / max(len(values), 1), 1), len(values))
    return int(times.astype(float) @ lengths) + 8 * int(times.sum())
