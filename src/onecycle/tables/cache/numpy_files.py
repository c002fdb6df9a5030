"""NumPy files (.npy, .npz) read a chunk of rows at a time."""

import math
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from onecycle.core.reading import open_for_reading
from onecycle.errors import DataError, FileError, OneCycleError, UnsafeFileError
from onecycle.tables.adapters import as_table
from onecycle.tables.values import Array

_MAX_INT64 = 2**63 - 1
_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_BAD_HEADER = (ArithmeticError, SyntaxError, TokenError, TypeError, ValueError)
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class RowChunk:
    """Consecutive rows: a pyarrow Table and, if the inputs are used unchanged, as images are, an array of these."""

    table: Any
    x: Array | None = None


@dataclass(frozen=True)
class ArrayHeader:
    """The header of a stored array."""

    name: str  # empty for a .npy file
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def is_numpy_file(path: Path) -> bool:
    """Return whether the suffix of `path` is .npy or .npz, in any case."""
    return path.name.lower().endswith((".npy", ".npz"))


def read_headers(path: Path) -> list[ArrayHeader]:
    """Return the headers of the arrays that make the rows of a file, in the order in which they are read.

    A .npy file must hold a structured array; a .npz file x and y, or one array for each column. Raises FileError for a
    damaged file, UnsafeFileError for Python objects, and ValueError for arrays that cannot be streamed.
    """
    with _explain_errors(path), ExitStack() as stack:
        return [header for header, _ in _open_arrays(path, stack)]


def column_names(headers: list[ArrayHeader]) -> tuple[list[str], bool]:
    """Return the columns of the chunks' tables, and whether the inputs are beside them as an unchanged array."""
    names = [header.name for header in headers]
    if names == [""]:
        return list(headers[0].dtype.names or ()), False
    if names != ["x", "y"] or len(headers[0].shape) < 2:
        return names, False
    (_, *inputs), (_, *targets) = headers[0].shape, headers[1].shape
    columns = [f"y{i}" for i in range(targets[0])] if targets and targets[0] != 1 else ["y"]
    if len(inputs) > 1 or headers[0].dtype == np.uint8:
        return columns, True
    return [*(f"x{i}" for i in range(inputs[0])), *columns], False


def stream_arrays(path: Path, rows: int) -> Iterator[RowChunk]:
    """Yield the rows of a file of arrays, at most `rows` at a time.

    x of bytes, or of more than two dimensions, is passed unchanged beside a table of y; any other x becomes the columns
    x0, x1, …. Raises what `read_headers` raises, and DataError for arrays of different lengths or stored column by
    column, and for NaN or infinity in x.
    """
    with _explain_errors(path), ExitStack() as stack:
        arrays = _open_arrays(path, stack)
        lengths = {header.name: header.shape[0] for header, _ in arrays}
        if len(set(lengths.values())) > 1:
            texts = " and ".join(f"{name} has {count} rows" for name, count in lengths.items())
            raise DataError(f"{path}: {texts}; expected equal lengths")
        for header, _ in arrays:
            if header.fortran_order and len(header.shape) > 1:
                raise DataError(
                    f"{path}: {header.name} is stored column by column, so its rows cannot be read one after another; "
                    "save np.ascontiguousarray of it, or raise memory_limit"
                )
        total, (names, raw_inputs) = arrays[0][0].shape[0], column_names([header for header, _ in arrays])
        for start in range(0, total, rows):
            values = {header.name: _read_rows(header, stream, min(rows, total - start)) for header, stream in arrays}
            yield _as_chunk(path, values, names, raw_inputs, start)


def _open_arrays(path: Path, stack: ExitStack) -> list[tuple[ArrayHeader, IO[bytes]]]:
    """Return each array's header and a stream positioned after it."""
    if path.name.lower().endswith(".npy"):
        stream = stack.enter_context(open_for_reading(path))
        header = _read_header("", stream, path)
        if header.dtype.names is None or len(header.shape) != 1:
            raise ValueError("not a structured array")
        return [(header, stream)]
    archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(open_for_reading(path))))
    entries = {entry.removesuffix(".npy"): entry for entry in archive.namelist()}
    names = ["x", "y"] if {"x", "y"} <= entries.keys() else list(entries)
    streams = [(name, stack.enter_context(archive.open(entries[name]))) for name in names]
    arrays = [(_read_header(name, stream, path), stream) for name, stream in streams]
    dimensions = [len(header.shape) for header, _ in arrays]
    is_pair = names == ["x", "y"] and dimensions[0] > 1 and dimensions[1] in (1, 2)
    if not is_pair and set(dimensions) != {1}:
        raise ValueError("neither x and y nor columns")
    return arrays


def _read_header(name: str, stream: IO[bytes], path: Path) -> ArrayHeader:
    shape, fortran_order, dtype = _HEADER_READERS[np.lib.format.read_magic(stream)](stream)
    if dtype.hasobject:
        raise UnsafeFileError(
            f"{path}: holds an array of Python objects, which could run code when loaded; expected numbers; "
            "save it again with a numeric dtype"
        )
    return ArrayHeader(name, shape, dtype, fortran_order)


def _read_rows(header: ArrayHeader, stream: IO[bytes], count: int) -> Array:
    size, content = count * header.row_bytes, bytearray()
    while len(content) < size:  # a member of an archive may return less than requested
        if not (data := stream.read(size - len(content))):
            raise EOFError(f"array {header.name} ends early")
        content += data
    array = np.frombuffer(content, header.dtype).reshape(count, *header.shape[1:])
    return array if header.dtype.isnative else array.astype(header.dtype.newbyteorder("="))


def _as_chunk(path: Path, values: dict[str, Array], names: list[str], raw_inputs: bool, start: int) -> RowChunk:
    if "" in values:
        return RowChunk(as_table(values[""]))
    if names[: len(values)] == list(values):
        return RowChunk(as_table(values))
    x, y = _check_inputs(values["x"], path, start, raw_inputs), values["y"]
    columns = [*(() if raw_inputs else x.T), *(y.T if y.ndim == 2 else [y])]
    return RowChunk(as_table(dict(zip(names, columns, strict=True))), x if raw_inputs else None)


def _check_inputs(x: Array, path: Path, start: int, is_raw: bool) -> Array:
    """Return `x` in a dtype that torch has, float64 only if it is not raw. Raises DataError for what is not finite."""
    if x.dtype.kind not in "biuf":
        raise DataError(f"{path}: x has dtype {x.dtype}; expected numbers: encode text as integers first")
    if x.dtype.kind == "u" and x.dtype.itemsize > 1:
        if x.max(initial=0) > _MAX_INT64:
            raise DataError(f"{path}: x contains {x.max()}; expected whole numbers below 2**63, or float64")
        return x.astype(np.int64)
    if x.dtype.kind == "f":
        if x.dtype.itemsize > 4:
            with np.errstate(over="ignore"):  # infinity is refused
                x = x.astype(np.float32 if is_raw else np.float64, copy=False)
        if len(bad := np.argwhere(~np.isfinite(x))):
            index = tuple(bad[0].tolist())
            raise DataError(
                f"{path}: x contains {x[index]} at row {start + index[0]}, position {list(index[1:])}; "
                "expected finite numbers: drop or fill them first"
            )
    return x


@contextmanager
def _explain_errors(path: Path) -> Generator[None]:
    """Turn what NumPy and zipfile raise for damaged files into a FileError."""
    try:
        yield
    except OneCycleError:
        raise
    except _BAD_ZIP as error:
        raise FileError(f"{path}: damaged ({error}); expected arrays saved with numpy; save it again") from error
    except KeyError as error:  # a version of the format that NumPy writes for unusual field names
        raise ValueError(f"version {error} of the NumPy format cannot be streamed") from error
    except _BAD_HEADER as error:
        raise ValueError(str(error)) from error
