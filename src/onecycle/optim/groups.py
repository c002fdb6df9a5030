"""Layer groups: cut a model into them, freeze them, and spread a learning rate over them."""

import reprlib
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise, takewhile
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

    def __init__(self, parameter: nn.Parameter, owner: nn.Module) -> None:
        super().__init__()
        self.parameter = parameter
        self.owners = (owner,)  # in a tuple it is no child of this module


def owner_of(leaf: nn.Module) -> nn.Module:
    """Return the model's module whose parameters a leaf has: a layer with a parametrization is no leaf itself."""
    return leaf.owners[0] if isinstance(leaf, DirectParameter) else leaf


def leaves(model: nn.Module) -> list[nn.Module]:
    """Return the modules without children, in order; direct parameters of other modules follow their children."""
    return [leaf for _, leaf in _named_leaves(model)]


def _named_leaves(model: nn.Module, name: str = "") -> list[tuple[str, nn.Module]]:
    children = list(model.named_children())
    if not children:
        return [(name, model)]
    found = [leaf for child, module in children for leaf in _named_leaves(module, f"{name}{child}.")]
    owned = {id(parameter) for _, child in children for parameter in child.parameters()}
    direct = [(each, parameter) for each, parameter in model.named_parameters() if id(parameter) not in owned]
    return found + [(f"{name}{each}.", DirectParameter(parameter, model)) for each, parameter in direct]


class LayerGroups(list[LayerGroup]):
    """The layer groups of a model, which follow it when its layers are replaced, added or removed."""

    def __init__(self, groups: Iterable[LayerGroup]) -> None:
        super().__init__(groups)
        self._places: dict[str, int] = {}  # the group of each leaf that the model has had, by its name

    def follow(self, model: nn.Module) -> None:
        """Make each leaf of `model` a member of one group, and drop what the model no longer has.

        A leaf that is in no group joins that of the leaf of the same name that it replaces, or else of the leaf whose
        name begins with the most modules in common with its own, the last of these. In a flat model that is the last
        group.
        """
        now = {id(_identity(leaf)): (name, leaf) for name, leaf in _named_leaves(model)}
        new = dict(now)
        for i, group in enumerate(self):
            group[:] = [now[key][1] for leaf in group if (key := id(_identity(leaf))) in now]
            self._places |= {new.pop(key)[0]: i for leaf in group if (key := id(_identity(leaf))) in new}
        for name, leaf in new.values():
            near = max(self._places, key=lambda place: (_in_common(place, name), self._places[place]), default="")
            self._places[name] = self._places.get(near, len(self) - 1)
            self[self._places[name]].append(leaf)


def _identity(leaf: nn.Module) -> nn.Module | nn.Parameter:
    return leaf.parameter if isinstance(leaf, DirectParameter) else leaf


def _in_common(name: str, other: str) -> int:
    """Return how many modules two dotted names begin with in common."""
    parts = zip(name.split("."), other.split("."), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], parts)))


def split_layers(model: nn.Module, at: Iterable[nn.Module] | Callable[[nn.Module], Any]) -> list[LayerGroup]:
    """Cut the leaves of `model` into groups, a new one starting at the first leaf of each module in `at`.

    `at` may be a function that takes the model and returns such modules, or lists of modules, one list for each group.
    Raises SettingError for anything else, and for a module that is not in the model.
    """
    boundaries: Any = at(model) if callable(at) else at
    boundaries = [boundaries] if isinstance(boundaries, nn.Module) else _as_list(boundaries)
    model_leaves = leaves(model)
    if boundaries and not isinstance(boundaries[0], nn.Module):
        modules, parts = set(model.modules()), [[_as_module(module) for module in _as_list(g)] for g in boundaries]
        if stranger := next((module for part in parts for module in part if module not in modules), None):
            raise _not_in_model(stranger)
        return [[leaf for module in part for leaf in leaves(module)] for part in parts]
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
            if trained or not isinstance(owner_of(leaf), BATCH_NORMS):
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
