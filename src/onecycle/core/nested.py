"""Nested values: tensors in lists, tuples, dicts and dataclasses, as models take and return them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor

from onecycle.errors import DataError


def map_leaves(function: Callable[..., Any], value: Any, *others: Any) -> Any:
    """Return `value` with each leaf replaced by `function(leaf, *leaves of others)`; containers keep their types.

    Raises KeyError or ValueError if one of the `others` is not nested like `value`.
    """
    if isinstance(value, dict):
        if any(not isinstance(other, Mapping) or other.keys() != value.keys() for other in others):
            raise KeyError(f"expected the keys {', '.join(map(str, value))}")
        result: Any = copy(value)  # an OrderedDict, say, stays one
        for key in value:
            result[key] = map_leaves(function, value[key], *(other[key] for other in others))
        return result
    if isinstance(value, list | tuple):
        if any(not isinstance(other, list | tuple) or len(other) != len(value) for other in others):
            raise ValueError(f"expected {len(value)} values")
        items = [map_leaves(function, *group) for group in zip(value, *others, strict=True)]
        kind: Any = type(value)
        return kind._make(items) if hasattr(kind, "_make") else kind(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        result = copy(value)
        for name in _field_names(value):
            leaves = (getattr(other, name) for other in others)
            object.__setattr__(result, name, map_leaves(function, getattr(value, name), *leaves))  # also if frozen
        return result
    return function(value, *others)


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Return `value` with `function` applied to each tensor in it."""

    def applied(leaf: Any) -> Any:
        return function(leaf) if isinstance(leaf, Tensor) else leaf

    return map_leaves(applied, value)


def leaves_by_path(value: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves by where they are, in the order of `map_leaves`: "[0]", "['logits']", ".logits" or ""."""
    if isinstance(value, dict):
        parts = {f"{path}[{key!r}]": item for key, item in value.items()}
    elif isinstance(value, list | tuple):
        names = getattr(value, "_fields", None)
        parts = {f"{path}.{names[i]}" if names else f"{path}[{i}]": item for i, item in enumerate(value)}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f"{path}.{name}": getattr(value, name) for name in _field_names(value)}
    else:
        return {path: value}
    return {path: leaf for path, part in parts.items() for path, leaf in leaves_by_path(part, path).items()}


def with_leaves(value: Any, leaves: Sequence[Any]) -> Any:
    """Return `value` with other leaves, in the order of `leaves_by_path`."""
    others = iter(leaves)

    def following(_: Any) -> Any:
        return next(others)

    return map_leaves(following, value)


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in a value."""
    return [leaf for leaf in leaves_by_path(value).values() if isinstance(leaf, Tensor)]


def count_rows(batch: Any) -> int | None:
    """Return the number of rows of a batch, that of its first tensor; None if it has no tensor with rows."""
    return next((len(tensor) for tensor in tensors_in(batch) if tensor.ndim), None)


def concatenate(batches: Sequence[Any], name: str, sizes: Sequence[int | None] | None = None) -> Any:
    """Join batches of one structure, leaf by leaf. A number per batch becomes a tensor with a number for each batch.

    Args:
        batches: At least one.
        name: What they are, for error messages.
        sizes: Rows of each batch, which each tensor must have (or a multiple), so that rows stay rows.

    Raises:
        DataError: If they cannot be joined along their rows.
    """
    counts = [None] * len(batches) if sizes is None else sizes
    if all(_is_list_of_rows(batch, count) for batch, count in zip(batches, counts, strict=True)):
        return [row for batch in batches for row in batch]
    parts = [leaves_by_path(batch) for batch in batches]
    if any(part.keys() != parts[0].keys() for part in parts):
        different = next(part for part in parts if part.keys() != parts[0].keys())
        raise DataError(f"{name} has the parts {_listed(parts[0])} in one batch and {_listed(different)} in another")
    joined = [_joined([part[path] for part in parts], f"{name}{path}", counts) for path in parts[0]]
    return with_leaves(batches[0], joined)


def _joined(leaves: list[Any], name: str, counts: Sequence[int | None]) -> Any:
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        first = leaves[0]
        is_plain = isinstance(first, str | int | float)
        if all(leaf is first or (is_plain and leaf == first) for leaf in leaves):
            return first
        raise DataError(f"{name} is of type {type(first).__name__}, and not the same in each batch; expected a tensor")
    for leaf, count in zip(leaves, counts, strict=True):
        if leaf.ndim and count and len(leaf) % count:
            raise DataError(
                f"{name} has shape {tuple(leaf.shape)} for {count} rows; expected the rows as its first dimension"
            )
    try:
        return torch.stack(leaves) if all(leaf.ndim == 0 for leaf in leaves) else torch.cat(leaves)
    except RuntimeError as error:
        shapes = list(dict.fromkeys(str(tuple(leaf.shape)) for leaf in leaves))[:2]
        raise DataError(f"{name} has shapes {' and '.join(shapes)}; expected one shape for each row") from error


def _is_list_of_rows(batch: Any, count: int | None) -> bool:
    """Whether a batch is a list with an entry for each row, such as the boxes of each image."""
    if not isinstance(batch, list) or len(batch) != count:  # pyright: ignore[reportUnknownArgumentType] -- of whatever
        return False
    tensors = tensors_in(batch)
    return not tensors or any(not tensor.ndim or len(tensor) != count for tensor in tensors)


def _listed(parts: Mapping[str, Any]) -> str:
    return ", ".join(path or "one value" for path in parts)


def _field_names(value: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(value)]
