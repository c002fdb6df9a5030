"""What is checked of every table, whichever way it came in."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

from onecycle.errors import DataError

Table: TypeAlias = Any  # a pyarrow.Table; pyarrow comes without types
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls the column of an index without a name


def normalized_table(table: Table, name: str) -> Table:
    """`table` with plain columns: views, extension types and run-ends as what they stand for, bytes as text.

    An unnamed pandas index is left out. Raises DataError, naming `name`, for no rows, for the names that `check_names`
    refuses, and for columns of structs, maps, unions, lists of these, or bytes that are no text.
    """
    try:
        keys: list[str] = table.column_names
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: the name of a column is not UTF-8 ({error}); expected text; rename it") from error
    kept = [i for i, key in enumerate(keys) if not _UNNAMED_INDEX.fullmatch(key)]
    table = table.select(kept).replace_schema_metadata(None)
    check_names(table.column_names, name)
    if not table.num_rows:
        raise DataError(f"{name}: no rows; expected at least one")
    for i, key in enumerate(table.column_names):
        column = table.column(i)
        if (simple := plain(column, f'{name}: column "{key}"')) is not column:
            table = table.set_column(i, key, simple)
    return table


def check_names(names: Sequence[str], name: str) -> None:
    """Raises DataError, naming `name`, for no columns, and for names that are empty or given twice."""
    if not names:
        raise DataError(f"{name}: no columns; expected at least one")
    empty = [i for i, key in enumerate(names) if not key.strip()]
    if empty:
        raise DataError(
            f"{name}: column {empty[0] + 1} of {len(names)} has no name; expected a name for each: name it, or leave "
            "it out (a pandas index with index=False)"
        )
    twice = [f'"{key}"' for key, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{name}: more than one column is called {', '.join(twice)}; expected each name once: rename them"
        )


def plain(column: Any, where: str) -> Any:
    """A pyarrow ChunkedArray of a type that tables are made of; the same object where it is one already."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
    import pyarrow.compute  # pyright: ignore[reportMissingTypeStubs] -- it has none

    kinds: Any = pa.types
    pc: Any = pyarrow.compute
    kind = column.type
    try:
        if kinds.is_run_end_encoded(kind):
            column = pc.run_end_decode(column)
        target = _plain_type(column.type, where)
        return column if target == column.type else column.cast(target)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{where} holds bytes that are no UTF-8 text; expected text or numbers; leave it out"
        ) from error
    except pa.ArrowException as error:
        raise DataError(f"{where} has type {kind}, which pyarrow cannot convert ({error}); convert it") from error


def _plain_type(kind: Any, where: str) -> Any:
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    kinds: Any = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type, where)
    if kinds.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _plain_type(kind.value_type, where), kind.ordered)
    if kinds.is_large_binary(kind):
        return pa.large_string()
    if any(is_it(kind) for is_it in (kinds.is_string_view, kinds.is_binary, kinds.is_binary_view)):
        return pa.string()
    if kinds.is_fixed_size_binary(kind):
        return pa.string()
    views = kinds.is_list_view(kind) or kinds.is_large_list_view(kind)
    if views or kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        value = _plain_type(kind.value_type, where)
        if not kinds.is_nested(value):
            return pa.list_(value) if views or value != kind.value_type else kind
    if kinds.is_nested(kind):
        raise DataError(
            f"{where} holds values of type {kind}; expected one number, text or date in each row, or a list of them; "
            "make its parts columns of their own, or leave it out"
        )
    return kind
