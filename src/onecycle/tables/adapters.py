"""Tables that are in memory already, in whatever library's form."""

import os
import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onecycle.errors import DataError
from onecycle.tables.read import read_table
from onecycle.tables.table_checks import Table, check_names, normalized_table


def open_table(source: Any, text: Collection[str] = ()) -> Table:
    """`source` as a pyarrow.Table: the path of a file that `read_table` reads, or what `as_table` takes.

    `text` names the columns of a CSV file that are kept as written. Raises DataError for anything else, and what these
    two raise.
    """
    if isinstance(source, str | os.PathLike):
        return read_table(source, text)
    table = as_table(source)
    if table is None:
        hint = "; call its collect() first" if hasattr(source, "collect") else ""
        raise DataError(
            f"{table_name(source)} is no table{hint}; expected the path of a file, a table of pyarrow, pandas, polars "
            "or another library that speaks Arrow, a dict of columns, a list of dicts, a structured NumPy array, or "
            "rows and targets as a pair (x, y)"
        )
    return table


def table_name(source: Any) -> str:
    """What to call `source` in a message: the path of a file, or its type, such as pandas.DataFrame."""
    if isinstance(source, str | os.PathLike):
        return str(Path(source))
    library = type(source).__module__.partition(".")[0]
    return type(source).__name__ if library in ("builtins", "__main__") else f"{library}.{type(source).__name__}"


def as_table(source: Any, name: str | None = None) -> Table | None:
    """`source` as a pyarrow.Table where it is a table, else None. Messages call it `name`, or by its type.

    Tables are: a pyarrow Table, RecordBatch, RecordBatchReader or Dataset; a pandas DataFrame (without its index); a
    Hugging Face Dataset; whatever has `__arrow_c_stream__`, as polars and DuckDB do; a dict of columns (sequences,
    NumPy arrays, tensors); a list of dicts, one for each row; a structured NumPy array. Arrays, tensors and pairs
    (x, y) are none. NaN becomes a missing value in all but what is Arrow already.

    Raises DataError for no columns or rows, names given twice, columns of different lengths, of mixed types, of more
    than one dimension, or of nested values that are no lists.
    """
    name = name or table_name(source)
    if _of(source, "pyarrow"):
        table = _pyarrow(source, name)
    elif _of(source, "pandas") and hasattr(source, "columns"):
        table = _pandas(source, name)
    elif isinstance(source, Mapping):
        table = _columns(list(map(str, source)), source.values(), name)
    elif hasattr(source, "with_format") and hasattr(source, "__getitem__"):
        table = source.with_format("arrow")[:]  # Hugging Face: its data.table would miss a shuffle, filter or selection
    elif hasattr(source, "__arrow_c_stream__"):
        table = _stream(source, name)
    elif isinstance(source, list) and source and isinstance(source[0], Mapping):
        table = _rows(source, name)
    elif isinstance(source, np.ndarray) and source.dtype.names and source.ndim == 1:
        table = _columns(source.dtype.names, [source[key] for key in source.dtype.names], name)
    else:
        return None
    return None if table is None else normalized_table(table, name)


def _of(thing: Any, library: str) -> bool:
    """Whether `thing` is of `library`, which is not imported for that."""
    return any(kind.__module__.partition(".")[0] == library for kind in type(thing).__mro__)


def _speaks_arrow(values: Any) -> bool:
    return hasattr(values, "__arrow_c_stream__") or hasattr(values, "__arrow_c_array__")


def _pyarrow(source: Any, name: str) -> Table | None:
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    if isinstance(source, pa.Table):
        return source
    if isinstance(source, pa.RecordBatch):
        return pa.Table.from_batches([source])
    read = getattr(source, "read_all", None) or getattr(source, "to_table", None)  # a reader; a Dataset
    try:
        return read() if read else None
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(name, error) from error


def _stream(source: Any, name: str) -> Table | None:
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    try:
        return pa.RecordBatchReader.from_stream(source).read_all()
    except (pa.ArrowException, OSError) as error:
        if "non-struct type" in str(error):  # a series: one column, without a name
            return None
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> DataError:
    return DataError(f"{name}: cannot be read as an Arrow table ({error}); convert the columns that Arrow lacks")


def _pandas(frame: Any, name: str) -> Table:
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    names = [str(key) for key in frame.columns]
    check_names(names, name)
    if names != list(frame.columns):
        frame = frame.set_axis(names, axis=1)
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):  # column by column, to say which it is
        return _columns(names, [frame[key] for key in names], name)


def _rows(rows: Sequence[Any], name: str) -> Table:
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"{name}: row {i} is {reprlib.repr(row)}; expected a dict, as row 0 is")
    keys = dict.fromkeys(key for row in rows for key in row)
    return _columns(list(map(str, keys)), [[row.get(key) for row in rows] for key in keys], name)


def _columns(names: Sequence[str], columns: Iterable[Any], name: str) -> Table:
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    arrays = [as_column(values, f'{name}: column "{key}"') for key, values in zip(names, columns, strict=True)]
    for key, array in zip(names, arrays, strict=True):
        if len(array) != len(arrays[0]):
            raise DataError(
                f'{name}: column "{key}" has {len(array)} rows, column "{names[0]}" has {len(arrays[0])}; '
                "expected as many in each"
            )
    return pa.Table.from_arrays(arrays, names=list(names))


def as_column(values: Any, where: str) -> Any:
    """One column as a pyarrow array. Raises DataError, naming `where`, where it is none."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    if hasattr(values, "detach"):
        values = _from_torch(values)
    if hasattr(values, "sparse"):  # of pandas
        values = values.to_numpy()
    shape = getattr(values, "shape", None)
    if shape is not None and len(shape) != 1:
        raise DataError(f"{where} has shape {tuple(shape)}; expected one value for each row; make each part a column")
    if isinstance(values, str | bytes) or not (isinstance(values, Sequence) or _speaks_arrow(values) or shape):
        raise DataError(
            f"{where} is {reprlib.repr(values)}, of type {type(values).__name__}; expected a list, array or tensor "
            "with a value for each row"
        )
    try:
        if _speaks_arrow(values) and not _of(values, "pandas"):
            return pa.chunked_array(values if hasattr(values, "__arrow_c_stream__") else [pa.array(values)])
        return pa.array(_native(values) if isinstance(values, np.ndarray) else values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise _not_a_column(values, where, error) from error


def _from_torch(tensor: Any) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def _native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same values in a dtype that pyarrow has."""
    kind = array.dtype
    if kind == np.longdouble:
        return array.astype(np.float64)
    if kind.kind in "mM" and (unit := np.datetime_data(kind)[0]) not in ("s", "ms", "us", "ns"):
        whole_days = kind.kind == "M" and unit in "YMWD"
        return array.astype("M8[D]" if whole_days else f"{kind.kind}8[s]")
    return array if kind.isnative else array.astype(kind.newbyteorder("="))


def _not_a_column(values: Iterable[Any], where: str, error: Exception) -> DataError:
    """The error for a column that pyarrow cannot make, with the first rows whose types differ."""
    first: dict[str, str] = {}
    for i, value in enumerate(values):
        if value is not None and value == value:  # NaN is missing, whatever the others are
            first.setdefault(type(value).__name__, f"row {i} is {reprlib.repr(value)}")
    if len(first) > 1:
        return DataError(
            f"{where} mixes {' and '.join(first)}: {', '.join(first.values())}; expected values of one type; convert "
            "them"
        )
    return DataError(f"{where} cannot be a column ({error}); expected numbers, text, dates or lists of them")
