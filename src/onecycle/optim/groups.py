"""Layer groups: cut a model into them, freeze them, and spread a learning rate over them."""

import reprlib
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any, TypeAlias

from torch import nn

from onecycle.core.checks import check_positive
from onecycle.errors import SettingError

LayerGroup: TypeAlias = list[nn.Module]  # modules without children
Rate: TypeAlias = "float | slice | Sequence[float]"
_FOR_EXAMPLE = ", for example 1e-2"
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class DirectParameter(nn.Module):
    """A parameter that belongs to a module directly, wrapped as a leaf module."""

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.parameter = parameter


def leaves(model: nn.Module) -> list[nn.Module]:
    """Return the modules without children, in order; direct parameters of other modules follow their children."""
    children = list(model.children())
    if not children:
        return [model]
    owned = {id(parameter) for child in children for parameter in child.parameters()}
    direct = [DirectParameter(parameter) for parameter in model.parameters() if id(parameter) not in owned]
    return [leaf for child in children for leaf in leaves(child)] + list(direct)


def split_layers(model: nn.Module, at: Iterable[nn.Module] | Callable[[nn.Module], Any]) -> list[LayerGroup]:
    """Cut the leaves of `model` into groups, a new one starting at the first leaf of each module in `at`.

    `at` may be a function that takes the model and returns such modules, or lists of modules, one list for each group.
    Raises SettingError for anything else, and for a module that is not in the model.
    """
    boundaries: Any = at(model) if callable(at) else at
    boundaries = [boundaries] if isinstance(boundaries, nn.Module) else _as_list(boundaries)
    if boundaries and not isinstance(boundaries[0], nn.Module):
        return [[leaf for module in _as_list(group) for leaf in leaves(_as_module(module))] for group in boundaries]
    model_leaves = leaves(model)
    starts = {0}
    for module in boundaries:
        first = leaves(_as_module(module))[0]
        index = next((i for i, leaf in enumerate(model_leaves) if leaf is first), None)
        if index is None:
            raise _not_in_model(module)
        starts.add(index)
    return [model_leaves[i:j] for i, j in pairwise([*sorted(starts), len(model_leaves)])]


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise _not_in_model(value)
    return list(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] -- a caller's


def _as_module(value: Any) -> nn.Module:
    if not isinstance(value, nn.Module):
        raise _not_in_model(value)
    return value


def _not_in_model(value: Any) -> SettingError:
    return SettingError(f"split: {reprlib.repr(value)} is not a part of the model; for example [model.lin2] is")


def freeze_groups(groups: Sequence[LayerGroup], first_trained: int) -> None:
    """Train the groups from index `first_trained` on, and only the BatchNorm layers of the others.

    A negative index counts from the end. Raises SettingError if it is not an integer.
    """
    if isinstance(first_trained, bool) or not isinstance(first_trained, Integral):
        raise SettingError(
            f"freeze_to: n is {reprlib.repr(first_trained)}; expected the index of a layer group: 0 is the first, "
            "-1 the last"
        )
    if first_trained < 0:
        first_trained += len(groups)
    for index, group in enumerate(groups):
        trained = index >= first_trained
        for leaf in group:
            if trained or not isinstance(leaf, BATCH_NORMS):
                leaf.requires_grad_(trained)


def per_group(rate: Rate, groups: int, name: str = "lr") -> list[float]:
    """Return one learning rate for each layer group.

    A number is used for all groups; `slice(a, b)` is geometric from a to b; `slice(b)` is b/10 for all groups but the
    last, which gets b; a sequence has one for each group.

    Raises SettingError for a rate that is not a finite number above 0.
    """
    if isinstance(rate, slice):
        ends = [rate.stop] if rate.start is None else [rate.start, rate.stop]
        return _spread([check_positive(value, name, _FOR_EXAMPLE) for value in ends], groups)
    if isinstance(rate, Iterable) and not isinstance(rate, str) and getattr(rate, "ndim", 1):
        rates = [check_positive(value, name, _FOR_EXAMPLE) for value in rate]
        if len(rates) != groups:
            raise SettingError(f"{name} has {len(rates)} values for {groups} layer group(s); give one for each")
        return rates
    return [check_positive(rate, name, _FOR_EXAMPLE)] * groups


def _spread(ends: list[float], groups: int) -> list[float]:
    if groups == 1:
        return ends[-1:]
    if len(ends) == 1:
        return [ends[0] / 10] * (groups - 1) + ends
    factor = (ends[1] / ends[0]) ** (1 / (groups - 1))
    return [ends[0] * factor**i for i in range(groups)]
