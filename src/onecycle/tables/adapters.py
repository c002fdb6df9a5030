"""Convert tables that are in memory, in any library's form, to pyarrow tables."""

import os
import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from onecycle.errors import DataError
from onecycle.tables.normalize import check_names, normalize_table
from onecycle.tables.read import read_table
from onecycle.tables.values import Array, Table, import_pyarrow


def open_table(source: Any, text_columns: Collection[str] = ()) -> Table:
    """Return a pyarrow.Table of `source`: the path of a file, for `read_table`, or what `as_table` takes.

    `text_columns` of a file without types, such as CSV, stay text. Raises DataError for anything else, and what these
    two raise.
    """
    if isinstance(source, str | os.PathLike):
        return read_table(source, text_columns)
    table = as_table(source)
    if table is None:
        hint = "; call its collect() first" if hasattr(source, "collect") else ""
        raise DataError(
            f"{table_name(source)} is not a table{hint}; expected the path of a file, a table of pyarrow, pandas, "
            "polars or another library that exports Arrow, a dict of columns, a list of dicts, a structured NumPy "
            "array, or rows and targets as a pair (x, y)"
        )
    return table


def table_name(source: Any) -> str:
    """Return the name of `source` for messages: the path of a file, or the type, such as pandas.DataFrame."""
    if isinstance(source, str | os.PathLike):
        return str(Path(source))
    library = type(source).__module__.partition(".")[0]
    return type(source).__name__ if library in ("builtins", "__main__") else f"{library}.{type(source).__name__}"


def as_table(source: Any, name: str | None = None) -> Table | None:
    """Return a pyarrow.Table of `source`, or None if it is not a table.

    Tables are: a pyarrow Table, RecordBatch, RecordBatchReader or Dataset; a pandas DataFrame (without its index); a
    Hugging Face Dataset; anything with `__arrow_c_stream__`, as polars and DuckDB have; a dict of columns (sequences,
    NumPy arrays, tensors); a list of dicts, one for each row; a structured NumPy array. Arrays, tensors and pairs
    (x, y) are not. NaN becomes a missing value, except in Arrow data. Messages call it `name`, or by its type.

    Raises DataError for no columns or rows, names that are not unique, and columns of different lengths, of mixed
    types, of more than one dimension, or of nested values that are not lists.
    """
    name = name or table_name(source)
    if _is_from(source, "pandas") and hasattr(source, "columns"):
        table = _from_pandas(source, name)
    elif isinstance(source, Mapping):
        table = _from_columns(list(map(str, source)), source.values(), name)
    elif hasattr(source, "with_format") and hasattr(source, "__getitem__"):
        table = source.with_format("arrow")[:]  # Hugging Face: its data.table would miss a shuffle, filter or selection
    elif hasattr(source, "__arrow_c_stream__") or _is_dataset(source):
        table = _from_arrow(source, name)
    elif isinstance(source, list) and source and isinstance(source[0], Mapping):
        table = _from_rows(source, name)
    elif isinstance(source, np.ndarray) and source.dtype.names and source.ndim == 1:
        table = _from_columns(source.dtype.names, [source[key] for key in source.dtype.names], name)
    else:
        return None
    if table is None:
        return None
    with suppress(UnicodeDecodeError):  # in a name, which is refused next
        for key, column in zip(table.column_names, table.columns, strict=True):
            _check_not_damaged(column, f'{name}: column "{key}"')
    return normalize_table(table, name)


def _check_not_damaged(column: Any, where: str) -> None:
    """Raise DataError for a column whose offsets or codes point outside of its memory, or whose text is not UTF-8."""
    try:
        column.validate(full=True)
    except import_pyarrow()[0].ArrowException as error:
        raise DataError(f"{where} of type {column.type} is damaged ({error})") from error


def _is_from(value: Any, library: str) -> bool:
    """Return whether the type of `value` is one of `library`, which is not imported for that."""
    return any(base.__module__.partition(".")[0] == library for base in type(value).__mro__)


def _is_dataset(source: Any) -> bool:
    """Return whether `source` is a Dataset or Scanner of pyarrow."""
    return _is_from(source, "pyarrow") and hasattr(source, "to_table")


def _exports_arrow(values: Any) -> bool:
    return hasattr(values, "__arrow_c_stream__") or hasattr(values, "__arrow_c_array__")


def _from_arrow(source: Any, name: str) -> Table | None:
    pa, _ = import_pyarrow()
    if isinstance(source, pa.Table):
        return source
    try:
        return source.to_table() if _is_dataset(source) else pa.RecordBatchReader.from_stream(source).read_all()
    except (pa.ArrowException, OSError) as error:
        if "non-struct type" in str(error):  # a series: one column, without a name
            return None
        raise DataError(
            f"{name}: cannot be read as an Arrow table ({error}); convert the columns that Arrow lacks"
        ) from error


def _from_pandas(frame: Any, name: str) -> Table:
    pa, _ = import_pyarrow()
    names = [str(key) for key in frame.columns]
    check_names(names, name)
    if names != list(frame.columns):
        frame = frame.set_axis(names, axis=1)
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):  # column by column, to name the one that fails
        return _from_columns(names, [frame[key] for key in names], name)


def _from_rows(rows: Sequence[Any], name: str) -> Table:
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{name}: row {i} is {reprlib.repr(row)}; expected a dict, as row 0 is")
    keys = dict.fromkeys(key for row in rows for key in row)
    return _from_columns(list(map(str, keys)), [[row.get(key) for row in rows] for key in keys], name)


def _from_columns(names: Sequence[str], columns: Iterable[Any], name: str) -> Table:
    pa, _ = import_pyarrow()
    arrays = [as_column(values, f'{name}: column "{key}"') for key, values in zip(names, columns, strict=True)]
    for key, array in zip(names, arrays, strict=True):
        if len(array) != len(arrays[0]):
            raise DataError(
                f'{name}: column "{key}" has {len(array)} rows, column "{names[0]}" has {len(arrays[0])}; '
                "expected equal lengths"
            )
    return pa.Table.from_arrays(arrays, names=list(names))


def as_column(values: Any, where: str) -> Any:
    """Return a pyarrow array of a column's values. Raises DataError, naming `where`, if they are not a column."""
    pa, _ = import_pyarrow()
    if hasattr(values, "detach"):  # a tensor
        values = values.detach().cpu()
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    if hasattr(values, "sparse"):  # of pandas
        values = values.to_numpy()
    shape = getattr(values, "shape", None)
    if shape is not None and len(shape) != 1:
        raise DataError(f"{where} has shape {tuple(shape)}; expected one value for each row; make each part a column")
    if isinstance(values, str | bytes) or not (isinstance(values, Sequence) or _exports_arrow(values) or shape):
        raise DataError(
            f"{where} is {reprlib.repr(values)}, of type {type(values).__name__}; expected a list, array or tensor "
            "with a value for each row"
        )
    values = _native_dtype(values, where) if isinstance(values, np.ndarray) else values
    try:
        if isinstance(values, pa.ChunkedArray):  # not by the protocol, in which pyarrow mixes up dictionaries
            return values
        if _exports_arrow(values) and not _is_from(values, "pandas"):
            return pa.chunked_array(values if hasattr(values, "__arrow_c_stream__") else [pa.array(values)])
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise _column_error(values, where, error) from error


def _native_dtype(array: Array, where: str) -> Array:
    """Return the values in a dtype that pyarrow has. Raises DataError if one of them would be another."""
    dtype = array.dtype.newbyteorder("=")
    if dtype == np.longdouble:
        with np.errstate(over="ignore"):
            native = array.astype(np.float64)
        same = np.isinf(native) == np.isinf(array)
    elif dtype.kind in "mM":
        unit, kind = np.datetime_data(dtype)[0], dtype.kind
        if unit == "generic" or (kind == "m" and unit in "YM"):
            raise DataError(f"{where} has dtype {dtype}, whose values have no length in seconds; convert it")
        unit = {"h": "s", "m": "s", "ps": "ns", "fs": "ns", "as": "ns"}.get(unit, unit)
        unit = ("D" if kind == "M" else "s") if unit in "YMWD" else unit
        native = array.astype(f"{kind}8[{unit}]")
        same = native.astype(dtype).view(np.int64) == array.astype(dtype).view(np.int64)
        if unit == "D":  # Arrow's days have 32 bits
            same &= np.isnat(native) | (np.abs(native.view(np.int64)) < 2**31)
    else:
        return array.astype(dtype, copy=False)
    if not same.all():
        row = int(np.argmin(same))
        raise DataError(
            f"{where} is {array[row]} in row {row}, of dtype {dtype}, which {native.dtype} cannot hold; convert it"
        )
    return native


def _column_error(values: Iterable[Any], where: str, error: Exception) -> DataError:
    """Return the error for values that pyarrow cannot convert, with the first row of each type if types differ."""
    first: dict[str, str] = {}
    for i, value in enumerate(values):
        if value is not None and value == value:  # NaN is missing, whatever the type of the others
            first.setdefault(type(value).__name__, f"row {i} is {reprlib.repr(value)}")
    if len(first) > 1:
        return DataError(
            f"{where} mixes {' and '.join(first)}: {', '.join(first.values())}; expected values of one type; convert "
            "them"
        )
    return DataError(f"{where} cannot be a column ({error}); expected numbers, text, dates or lists of them")
