"""Arrays: read from IDX, .npy and .npz files, checked, and turned into tensors."""

import math
import os
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from onecycle.core.reading import MAX_BYTES, Budget, open_for_reading, read_unpacked
from onecycle.errors import DataError, FileError, OneCycleError, UnsafeFileError, warn_user

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]  # what a file holds is only known when it is read
ArrayLike: TypeAlias = Tensor | Array | Sequence[float] | Sequence[Sequence[float]]
DatasetLike: TypeAlias = Dataset[Any] | ArrayLike | Sequence[ArrayLike]  # a data set, x alone, or (x, ..., y)

_MAX_INT64 = 2**63 - 1
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
# all that NumPy raises for a damaged .npy file
_NPY_ERRORS = (ArithmeticError, EOFError, MemoryError, RecursionError, SyntaxError, TokenError, TypeError, ValueError)
_COARSEST = 1e-3  # distance of two numbers of a column that training can do with, as a fraction of its range
_NOISE = 1e-14  # range of a column that is constant but for rounding, as a fraction of its numbers
_NEGLIGIBLE = 1e-30  # numbers beside others that are this much larger


def read_idx(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> Array:
    """Read an IDX file (the format of MNIST, http://yann.lecun.com/exdb/mnist), gzip-compressed or not.

    Returns a writable array of the shape and type that the file states, for MNIST uint8 of (n, 28, 28) or (n,).
    Raises FileError if the file is missing, damaged, not IDX or unpacks to more than `max_bytes` (2 GiB; by default a
    packed file to no more than 128 MiB or 200 times its size).
    """
    return idx_array(read_unpacked(Path(path), max_bytes), Path(path))


def idx_array(content: bytearray, path: Path) -> Array:
    """Return the array in the bytes of an IDX file; `path` is for messages. Raises FileError as `read_idx` does."""
    # two zero bytes, a type byte, the number of dimensions, each dimension in 4 bytes, the numbers: all big-endian
    if len(content) < 4 or not content.startswith(b"\0\0") or content[2] not in _IDX_TYPES or content[3] == 0:
        raise FileError(
            f"{path}: starts with the bytes {content[:4].hex(' ')}; expected an IDX file: 00 00, a type from 08 to 0e, "
            "the number of dimensions"
        )
    dtype, start = np.dtype(_IDX_TYPES[content[2]]), 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise FileError(
            f"{path}: {len(content):,} bytes; expected {expected:,} for shape {shape} of {dtype.name}; "
            "copy or download it again"
        )
    if len(shape) > 32:  # the limit of NumPy 1
        raise FileError(f"{path}: {len(shape)} dimensions; expected at most 32")
    numbers = np.frombuffer(content, dtype, offset=start) if expected > start else np.empty(0, dtype)
    try:
        return numbers.astype(dtype.newbyteorder("="), copy=False).reshape(shape)
    except ValueError as error:  # no numbers, in a shape beyond NumPy's integers
        raise FileError(f"{path}: shape {shape} is too large; copy or download it again") from error


def read_npy(path: str | os.PathLike[str]) -> Array:
    """Read the array in a .npy file.

    Raises UnsafeFileError for an array of Python objects, FileError for a file that is missing, damaged or not .npy.
    """
    path = Path(path)
    with open_for_reading(path) as file:
        return _npy_array(file, path)


def read_npz(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> dict[str, Array]:
    """Read every array in an .npz file: name → array.

    Raises UnsafeFileError for an array of Python objects; FileError for a file that is missing, damaged, not .npz, or
    unpacks to more than `max_bytes` (2 GiB).
    """
    path = Path(path)
    try:
        with open_for_reading(path) as file, zipfile.ZipFile(file) as archive:
            budget = Budget(path, max_bytes)
            for entry in archive.infolist():
                budget.spend(entry.file_size)  # zipfile never unpacks more of an entry than this
            arrays: dict[str, Array] = {}
            for entry in archive.infolist():
                with archive.open(entry) as packed:
                    arrays[entry.filename.removesuffix(".npy")] = _npy_array(packed, path)
            return arrays
    except OneCycleError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise FileError(
            f"{path}: damaged or not a .npz file ({error}); expected arrays saved with numpy.savez"
        ) from error


def _npy_array(file: IO[bytes], path: Path) -> Array:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files of Python 2 and old names of dtypes are read all the same
            return np.lib.format.read_array(file, allow_pickle=False)
    except _NPY_ERRORS as error:
        if "allow_pickle" in str(error):  # NumPy has no error class for it
            raise UnsafeFileError(
                f"{path}: holds an array of Python objects, which could run code when loaded; expected numbers; "
                "save it again with a numeric dtype"
            ) from error
        raise FileError(f"{path}: damaged or not a .npy array ({error}); expected one saved with numpy.save") from error


def as_dataset(data: DatasetLike, name: str) -> TensorDataset:
    """Return `data`, a TensorDataset, a pair (x, y) of arrays or x alone, as a TensorDataset of checked tensors.

    float64 becomes torch's default dtype, integer targets become int64 (which the losses expect); x keeps its integers.
    The `classes` of a TensorDataset are passed on. `name` is for messages. Raises DataError for no rows, different
    lengths, NaN or infinity, and values that are not numbers.
    """
    values: Any = data.tensors if isinstance(data, TensorDataset) else data
    values = values if isinstance(values, list | tuple) else (values,)
    if not values:
        raise DataError(f"{name} is empty; expected a pair (x, y)")
    names = ["x", "y"] if len(values) <= 2 else [*(f"x{i}" for i in range(1, len(values))), "y"]
    tensors = [as_tensor(value, f"{name}.{part}") for value, part in zip(values, names, strict=False)]
    if len({len(tensor) for tensor in tensors}) > 1:
        rows = " and ".join(f"{part} has {len(x)} rows" for x, part in zip(tensors, names, strict=False))
        raise DataError(f"{name}: {rows}; expected equal lengths")
    if not len(tensors[0]):
        raise DataError(f"{name} has no rows; expected at least one")
    if len(tensors) > 1 and not tensors[-1].is_floating_point():
        tensors[-1] = tensors[-1].long()
    dataset = TensorDataset(*tensors)
    if isinstance(data, TensorDataset) and hasattr(data, "classes"):
        dataset.classes = data.classes  # pyright: ignore[reportAttributeAccessIssue] -- a data set may name its classes
    return dataset


def is_in_memory(data: object) -> bool:
    """Return whether the rows of `data` are those of its tensors: a TensorDataset that overrides no row access."""
    methods = ("__len__", "__getitem__", "__getitems__")
    return isinstance(data, TensorDataset) and all(
        getattr(type(data), method, None) is getattr(TensorDataset, method, None) for method in methods
    )


def as_tensor(array: object, name: str, keep_float64: bool = False) -> Tensor:
    """Return `array` as a tensor, sharing its memory if possible. Raises DataError if it cannot be trained on.

    float64 becomes torch's default dtype unless `keep_float64` is set. A warning, or for targets (whose name ends in
    "y") a DataError, says if that cannot tell the numbers of a column apart.
    """
    if not isinstance(array, Tensor):
        try:
            array = np.asanyarray(array)
        except ValueError:
            raise DataError(f"{name} has rows of different lengths; expected equal lengths") from None
        array = _from_numpy(array, name)
    if array.ndim == 0:
        raise DataError(f"{name} is a single number; expected an array with a row for each example")
    if array.is_floating_point():
        _check_finite(array, name)
        if array.dtype is torch.float64 and not keep_float64 and torch.get_default_dtype() is not torch.float64:
            array = _rounded(array, name)
    return array


def _rounded(array: Tensor, name: str) -> Tensor:
    """Return float64 numbers in torch's default dtype. Raises DataError or warns if it cannot hold them."""
    rounded, dtype = array.to(torch.get_default_dtype()), torch.get_default_dtype()
    info, text = torch.finfo(dtype), str(dtype).removeprefix("torch.")
    if not array.numel():
        return rounded
    low, high = array.aminmax(dim=0)  # of each column
    size, spread = torch.maximum(-low, high), high - low
    if bool(size.max() > info.max):
        raise DataError(
            f"{name} contains {max(float(low.min()), float(high.max()), key=abs):g}, which {text} cannot hold; divide "
            "it first, or use torch.set_default_dtype(torch.float64)"
        )
    step = torch.maximum(size * info.eps, torch.full_like(size, info.tiny * info.eps))  # between two numbers
    is_noise = spread <= _NOISE * size
    is_coarse, is_target = (spread * _COARSEST < step) & ~is_noise, name.endswith("y")
    if not is_target:
        is_coarse &= size >= _NEGLIGIBLE * size.max()
    for place in is_coarse.nonzero().tolist():
        index = (slice(None), *place)
        if bool((rounded[index].double() != array[index]).any()):
            column = f", column {place[0]}," if len(place) == 1 else f", position {place}," if place else ""
            problem = (
                f"{name}{column} is from {float(low[tuple(place)]):.17g} to {float(high[tuple(place)]):.17g}, and "
                f"{text} cannot tell such numbers apart; subtract what all have in common, or multiply them, before "
                "they are given, or use torch.set_default_dtype(torch.float64)"
            )
            if is_target:
                raise DataError(problem)
            warn_user(problem)
            break
    return rounded


def _from_numpy(array: Array, name: str) -> Tensor:
    if np.ma.is_masked(array):
        raise DataError(
            f"{name} has {np.ma.count_masked(array)} masked values; expected a value in each place: fill them"
        )
    array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        sample = f", for example {array.flat[0]!r}" if array.size else ""
        is_complex = array.dtype.kind == "c"
        fix = "give real and imaginary parts as columns" if is_complex else "encode text as integers first"
        raise DataError(f"{name} has dtype {array.dtype}{sample}; expected numbers: {fix}")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # torch's uint16 to uint64 support few operations
        if array.size and array.max() > _MAX_INT64:
            raise DataError(f"{name} contains {array.max()}; expected whole numbers below 2**63, or float64")
        array = array.astype(np.int64)
    elif array.dtype.kind == "f" and array.dtype.itemsize > 8:  # torch has none
        with np.errstate(over="ignore"):  # infinity is refused
            array = array.astype(np.float64)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))  # torch takes none of these as they are
    return torch.from_numpy(array)


def _check_finite(x: Tensor, name: str) -> None:
    """Raise DataError for NaN or infinity, naming the first row that has one."""
    if x.sum().isfinite():  # one pass, no copy; an overflow of the sum only leads to the closer look
        return
    places = (~x.isfinite()).nonzero()
    if len(places):
        first = places[0].tolist()
        column = f", column {first[1]}" if len(first) == 2 else f", position {first[1:]}" if len(first) > 2 else ""
        raise DataError(
            f"{name} contains {x[tuple(first)].item()} at row {first[0]}{column} ({len(places)} such values); "
            "expected finite numbers: drop or fill them first"
        )
