"""NumPy files (.npy, .npz) read piece by piece, as the tables or arrays that they are taken for."""

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
from onecycle.tables.values import import_pyarrow

Array = np.ndarray[Any, np.dtype[Any]]
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_DAMAGED = (ArithmeticError, SyntaxError, TokenError, TypeError, ValueError)
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Piece:
    """Some rows of a source: a pyarrow Table and, where inputs are taken as they are, an array of these."""

    table: Any
    x: Array | None = None


@dataclass(frozen=True)
class StoredArray:
    """What the header of an array says."""

    name: str  # empty for that of a .npy file
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def bytes_in_memory(self) -> int:
        """What the whole array takes."""
        return math.prod(self.shape) * self.dtype.itemsize


def is_array_file(path: Path) -> bool:
    """Whether the suffix of `path` is that of arrays which can be streamed."""
    return path.name.lower().endswith((".npy", ".npz"))


def array_parts(path: Path) -> list[StoredArray]:
    """The arrays that make the rows of a file, in the order in which they are read.

    A .npy file must hold a structured array; a .npz x and y, or one array a column. Raises FileError for a damaged
    file, UnsafeFileError for one of Python objects, ValueError for what is not streamed.
    """
    with _explained(path), ExitStack() as stack:
        return [part for part, _ in _streams(path, stack)]


def column_names(parts: list[StoredArray]) -> tuple[list[str], bool]:
    """The columns of the tables that `stream_arrays` gives, and whether the inputs are beside them, as they are."""
    names = [part.name for part in parts]
    if names == [""]:
        return list(parts[0].dtype.names or ()), False
    if names != ["x", "y"] or len(parts[0].shape) < 2:
        return names, False
    (_, *inputs), (_, *targets) = parts[0].shape, parts[1].shape
    columns = [f"y{i}" for i in range(targets[0])] if targets and targets[0] != 1 else ["y"]
    if len(inputs) > 1 or parts[0].dtype == np.uint8:
        return columns, True
    return [*(f"x{i}" for i in range(inputs[0])), *columns], False


def stream_arrays(path: Path, rows: int) -> Iterator[Piece]:
    """The rows of a file of arrays, at most `rows` at a time.

    x of bytes, or of more than two dimensions, is given as it is, beside a table of y; else x is the columns x0, x1, ….
    Raises as `array_parts`, and DataError for arrays of different lengths and for NaN or infinity in x.
    """
    with _explained(path), ExitStack() as stack:
        found = _streams(path, stack)
        lengths = {part.name: part.shape[0] for part, _ in found}
        if len(set(lengths.values())) > 1:
            texts = " and ".join(f"{name} has {count} rows" for name, count in lengths.items())
            raise DataError(f"{path}: {texts}; expected as many")
        for part, _ in found:
            if part.fortran and len(part.shape) > 1:
                raise DataError(
                    f"{path}: {part.name} is stored column by column, so its rows cannot be read one after another; "
                    "save np.ascontiguousarray of it, or raise memory_limit"
                )
        total, (names, as_is) = found[0][0].shape[0], column_names([part for part, _ in found])
        for start in range(0, total, rows):
            arrays = {part.name: _rows(part, stream, min(rows, total - start)) for part, stream in found}
            yield _piece(path, arrays, names, as_is, start)


def _streams(path: Path, stack: ExitStack) -> list[tuple[StoredArray, IO[bytes]]]:
    """The arrays' headers, and streams that stand behind them."""
    if path.name.lower().endswith(".npy"):
        stream = stack.enter_context(open_for_reading(path))
        part = _header("", stream, path)
        if part.dtype.names is None or len(part.shape) != 1:
            raise ValueError("no structured array")
        return [(part, stream)]
    archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(open_for_reading(path))))
    entries = {entry.removesuffix(".npy"): entry for entry in archive.namelist()}
    names = ["x", "y"] if {"x", "y"} <= entries.keys() else list(entries)
    streams = [(name, stack.enter_context(archive.open(entries[name]))) for name in names]
    found = [(_header(name, stream, path), stream) for name, stream in streams]
    shapes = [part.shape for part, _ in found]
    as_pair = names == ["x", "y"] and len(shapes[0]) > 1 and len(shapes[1]) in (1, 2)
    if not as_pair and (not shapes or any(len(shape) != 1 for shape in shapes)):
        raise ValueError("neither x and y nor columns")
    return found


def _header(name: str, stream: IO[bytes], path: Path) -> StoredArray:
    shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(stream)](stream)
    if dtype.hasobject:
        raise UnsafeFileError(
            f"{path}: holds an array of Python objects, which could run code when loaded; expected numbers; "
            "save it again with a numeric dtype"
        )
    return StoredArray(name, shape, dtype, fortran)


def _rows(part: StoredArray, stream: IO[bytes], count: int) -> Array:
    wanted = count * math.prod(part.shape[1:]) * part.dtype.itemsize
    content = bytearray()
    while len(content) < wanted:  # an entry of an archive may give less than it is asked for
        if not (piece := stream.read(wanted - len(content))):
            raise EOFError(f"array {part.name} ends early")
        content += piece
    array = np.frombuffer(content, part.dtype).reshape(count, *part.shape[1:])
    return array if part.dtype.isnative else array.astype(part.dtype.newbyteorder("="))


def _piece(path: Path, arrays: dict[str, Array], names: list[str], as_is: bool, start: int) -> Piece:
    pa, _ = import_pyarrow()
    if "" in arrays:
        return Piece(as_table(arrays[""]))
    if names[: len(arrays)] == list(arrays):
        return Piece(as_table(arrays))
    x, y = _checked(arrays["x"], path, start), arrays["y"]
    columns = [*(() if as_is else x.T), *(y.T if y.ndim == 2 else [y])]
    found = {name: pa.array(np.ascontiguousarray(column)) for name, column in zip(names, columns, strict=True)}
    return Piece(pa.table(found), x if as_is else None)


def _checked(x: Array, path: Path, start: int) -> Array:
    """`x` in a dtype that torch has."""
    if x.dtype.kind not in "biuf":
        raise DataError(f"{path}: x has dtype {x.dtype}; expected numbers: encode text as integers first")
    if x.dtype.kind == "u" and x.dtype.itemsize > 1:
        x = x.astype(np.int64)
    if x.dtype.kind == "f":
        x = x.astype(np.float32, copy=False) if x.dtype.itemsize > 4 else x
        if not np.isfinite(x.sum(dtype=np.float64)):
            bad = np.argwhere(~np.isfinite(x))
            if len(bad):
                where = tuple(bad[0])
                raise DataError(
                    f"{path}: x contains {x[where]} at row {start + where[0]}, position {[int(i) for i in where[1:]]}; "
                    "expected finite numbers: drop or fill them first"
                )
    return x


@contextmanager
def _explained(path: Path) -> Generator[None]:
    """Turn what NumPy and zipfile raise for damaged files into a FileError."""
    try:
        yield
    except OneCycleError:
        raise
    except _BAD_ZIP as error:
        raise FileError(f"{path}: damaged ({error}); expected arrays saved with numpy; save it again") from error
    except KeyError as error:  # a version of the format that NumPy writes for odd names of fields
        raise ValueError(f"version {error} of the format is not streamed") from error
    except _DAMAGED as error:
        raise ValueError(str(error)) from error
