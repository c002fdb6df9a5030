"""Layer groups: cutting a model into them, freezing them, a learning rate for each."""

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
    """A parameter that its module holds directly, as a leaf of its own."""

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.parameter = parameter


def leaves(model: nn.Module) -> list[nn.Module]:
    """The modules without children, in order; direct parameters of the others follow their children."""
    children = list(model.children())
    if not children:
        return [model]
    owned = {id(parameter) for child in children for parameter in child.parameters()}
    lone = [DirectParameter(parameter) for parameter in model.parameters() if id(parameter) not in owned]
    return [leaf for child in children for leaf in leaves(child)] + list(lone)


def split_layers(model: nn.Module, at: Iterable[nn.Module] | Callable[[nn.Module], Any]) -> list[LayerGroup]:
    """Cut the leaves of `model` into groups, a new one starting at the first leaf of each module in `at`.

    `at` may be a function that takes the model and gives such modules, or lists of modules, one list a group.
    Raises SettingError for anything else, and for a module that is not in the model.
    """
    found: Any = at(model) if callable(at) else at
    marks = [found] if isinstance(found, nn.Module) else _listed(found)
    if marks and not isinstance(marks[0], nn.Module):
        return [[leaf for module in _listed(group) for leaf in leaves(_module(module))] for group in marks]
    everything = leaves(model)
    starts = {0}
    for mark in marks:
        first = leaves(_module(mark))[0]
        position = next((i for i, leaf in enumerate(everything) if leaf is first), None)
        if position is None:
            raise _no_part(mark)
        starts.add(position)
    bounds = [*sorted(starts), len(everything)]
    return [everything[i:j] for i, j in pairwise(bounds)]


def _listed(found: Any) -> list[Any]:
    if isinstance(found, str) or not isinstance(found, Iterable):
        raise _no_part(found)
    return list(found)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] -- a caller's


def _module(found: Any) -> nn.Module:
    if not isinstance(found, nn.Module):
        raise _no_part(found)
    return found


def _no_part(found: Any) -> SettingError:
    return SettingError(f"split: {reprlib.repr(found)} is not a part of the model; for example [model.lin2] is")


def freeze_groups(groups: Sequence[LayerGroup], first_trained: int) -> None:
    """Train the groups from index `first_trained` on; of the others only the BatchNorm layers.

    An index below 0 counts from the end. Raises SettingError for one that is no whole number.
    """
    if isinstance(first_trained, bool) or not isinstance(first_trained, Integral):
        raise SettingError(
            f"freeze_to: n is {reprlib.repr(first_trained)}; expected the number of a layer group: 0 is the first, "
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
    """One learning rate for each layer group.

    A number is the same for all; `slice(a, b)` is geometric from a to b; `slice(b)` is b/10 for all but the last,
    which gets b; a sequence gives one each. Raises SettingError for a rate that is not a finite number above 0.
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
