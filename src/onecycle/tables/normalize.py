"""Normalize a table, whatever it was read from: check its names, and cast columns to types that are supported."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from onecycle.errors import DataError
from onecycle.tables.values import ChunkedArray, DataType, RecordBatch, Table, import_pyarrow

_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")  # pandas' name for the column of an index without a name


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
    """Return the column cast to a supported type, or the same object if it has one already."""
    pa, pc = import_pyarrow()
    original_type = column.type
    try:
        if pa.types.is_run_end_encoded(original_type):
            column = pc.run_end_decode(column)
        target = _supported_type(column.type, where)
        return column if target == column.type else column.cast(target)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{where} holds bytes that are not UTF-8 text; expected text or numbers; leave it out"
        ) from error
    except pa.ArrowException as error:
        raise DataError(
            f"{where} has type {original_type}, which pyarrow cannot convert ({error}); convert it"
        ) from error


def _supported_type(data_type: DataType, where: str) -> DataType:
    pa, _ = import_pyarrow()
    types = pa.types
    if isinstance(data_type, pa.BaseExtensionType):
        return _supported_type(data_type.storage_type, where)
    if types.is_dictionary(data_type):
        return pa.dictionary(data_type.index_type, _supported_type(data_type.value_type, where), data_type.ordered)
    if types.is_large_binary(data_type):
        return pa.large_string()
    bytes_or_views = (types.is_string_view, types.is_binary, types.is_binary_view, types.is_fixed_size_binary)
    if any(is_type(data_type) for is_type in bytes_or_views):
        return pa.string()
    is_view = types.is_list_view(data_type) or types.is_large_list_view(data_type)
    if is_view or types.is_list(data_type) or types.is_large_list(data_type) or types.is_fixed_size_list(data_type):
        value = _supported_type(data_type.value_type, where)
        if not types.is_nested(value):
            return pa.list_(value) if is_view or value != data_type.value_type else data_type
    if types.is_nested(data_type):
        raise DataError(
            f"{where} holds values of type {data_type}; expected one number, text or date in each row, or a list of "
            "them; make its parts columns of their own, or leave it out"
        )
    return data_type
