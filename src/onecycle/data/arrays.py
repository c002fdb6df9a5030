"""Arrays of any kind to tensors that can be trained on, with errors that say what is wrong with them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from onecycle.errors import DataError


def as_dataset(data: Any, name: str) -> TensorDataset:
    """A TensorDataset of `data`: a TensorDataset, or a pair (x, y) of arrays or tensors, or x alone.

    float64 becomes torch's default dtype, integer targets become int64 (what the losses take); x keeps integers as
    they are. A TensorDataset's `classes` are kept. Raises DataError for no rows, different lengths, NaN or infinity,
    and for what is not numeric.
    """
    tensors = data.tensors if isinstance(data, TensorDataset) else data if isinstance(data, list | tuple) else (data,)
    if not tensors:
        raise DataError(f"{name} is empty; expected a pair (x, y)")
    parts = [as_tensor(part, f"{name}.{_part_name(i, len(tensors))}") for i, part in enumerate(tensors)]
    if len({len(part) for part in parts}) > 1:
        rows = " and ".join(f"{_part_name(i, len(parts))} has {len(part)} rows" for i, part in enumerate(parts))
        raise DataError(f"{name}: {rows}; expected as many targets as inputs")
    if not len(parts[0]):
        raise DataError(f"{name} has no rows; expected at least one")
    if len(parts) > 1 and not parts[-1].is_floating_point():
        parts[-1] = parts[-1].long()
    made = TensorDataset(*parts)
    if isinstance(data, TensorDataset) and hasattr(data, "classes"):
        made.classes = data.classes  # pyright: ignore[reportAttributeAccessIssue] -- a data set may name its classes
    return made


def is_in_memory(data: Any) -> bool:
    """Whether the rows of `data` are those of its tensors: a TensorDataset that does not give rows in its own way."""
    ways = ("__len__", "__getitem__", "__getitems__")
    return isinstance(data, TensorDataset) and all(
        getattr(type(data), way, None) is getattr(TensorDataset, way, None) for way in ways
    )


def as_tensor(array: Any, name: str) -> Tensor:
    """`array` as a tensor, sharing its memory where it can. Raises DataError where it cannot be trained on."""
    if not isinstance(array, Tensor):
        try:
            array = np.asarray(array)
        except ValueError:
            raise DataError(f"{name} has rows of different lengths; expected as many numbers in each") from None
        array = _from_numpy(array, name)
    if array.ndim == 0:
        raise DataError(f"{name} is a single number; expected an array with a row for each example")
    if array.is_floating_point():
        if array.dtype is torch.float64:
            array = array.to(torch.get_default_dtype())
        check_finite(array, name)
    return array


def _from_numpy(array: np.ndarray[Any, Any], name: str) -> Tensor:
    if array.dtype.kind not in "biuf":
        sample = f", for example {array.flat[0]!r}" if array.size else ""
        raise DataError(f"{name} has dtype {array.dtype}{sample}; expected numbers: encode text as integers first")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # torch's uint16 to uint64 support few operations
        array = array.astype(np.int64)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides) or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))  # torch takes none of these as they are
    return torch.from_numpy(array)


def check_finite(x: Tensor, name: str) -> None:
    """Raises DataError for NaN or infinity, naming the first row that has one."""
    if x.sum().isfinite():  # one pass, no copy; an overflow of the sum only leads to the closer look
        return
    bad = (~x.isfinite()).nonzero()
    if len(bad):
        where = bad[0].tolist()
        found = x[tuple(where)].item()
        column = f", column {where[1]}" if len(where) == 2 else f", position {where[1:]}" if len(where) > 2 else ""
        raise DataError(
            f"{name} contains {found} at row {where[0]}{column} ({len(bad)} such values); "
            "expected finite numbers: drop or fill them first"
        )


def _part_name(index: int, count: int) -> str:
    if count <= 2:
        return "xy"[index]
    return "y" if index == count - 1 else f"x{index + 1}"
