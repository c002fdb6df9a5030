"""Layer groups, and the lesson's hyper-parameters over any torch optimizer."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from onecycle.core.errors import SettingError

AdamW = partial(torch.optim.Adam, betas=(0.9, 0.99))  # the lesson's name; `true_wd` decouples the decay
OptFunc: TypeAlias = Callable[..., Optimizer]
Rate: TypeAlias = "float | slice | Sequence[float]"

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_NORMS = (*_BATCH_NORMS, nn.LayerNorm)
_WITH_BIAS = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


class LoneParameter(nn.Module):
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
    lone = [LoneParameter(parameter) for parameter in model.parameters() if id(parameter) not in owned]
    return [leaf for child in children for leaf in leaves(child)] + list(lone)


LayerGroup: TypeAlias = list[nn.Module]


def split_layers(model: nn.Module, at: Iterable[nn.Module] | Callable[[nn.Module], Any]) -> list[LayerGroup]:
    """Cut the leaves of `model` into groups, a new one starting at the first leaf of each module in `at`.

    `at` may be a function that takes the model and gives such modules, or lists of modules, one list a group.
    Raises SettingError for a module that is not in the model.
    """
    found: Any = at(model) if callable(at) else at
    marks: list[Any] = [found] if isinstance(found, nn.Module) else list(found)
    if marks and not isinstance(marks[0], nn.Module):
        return [[leaf for module in group for leaf in leaves(module)] for group in marks]
    everything = leaves(model)
    starts = {0}
    for mark in marks:
        first = leaves(mark)[0]
        position = next((i for i, leaf in enumerate(everything) if leaf is first), None)
        if position is None:
            raise SettingError(f"split: {mark} is not a part of the model; give modules of it, for example [model.lin2]")
        starts.add(position)
    bounds = [*sorted(starts), len(everything)]
    return [everything[i:j] for i, j in zip(bounds[:-1], bounds[1:], strict=True)]


def freeze_groups(groups: Sequence[LayerGroup], first_trained: int) -> None:
    """Train the groups from index `first_trained` on; of the others only the BatchNorm layers."""
    for index, group in enumerate(groups):
        trained = index in range(len(groups))[first_trained:]
        for leaf in group:
            if trained or not isinstance(leaf, _BATCH_NORMS):
                leaf.requires_grad_(trained)


def per_group(rate: Rate, groups: int, name: str = "lr") -> list[float]:
    """One learning rate for each layer group.

    A number is the same for all; `slice(a, b)` is geometric from a to b; `slice(b)` is b/10 for all but the last,
    which gets b; a sequence gives one each. Raises SettingError for a rate that is not a finite number above 0.
    """
    if isinstance(rate, slice):
        rates = _spread(rate.start, rate.stop, groups)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] -- a slice of rates is untyped
    elif isinstance(rate, Iterable):
        rates = [float(value) for value in rate]
    else:
        rates = [rate] * groups
    if len(rates) != groups:
        raise SettingError(f"{name} has {len(rates)} values for {groups} layer group(s); give one for each")
    for value in rates:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise SettingError(f"{name} is {value!r}; expected a finite number above 0, for example 1e-2")
    return [float(value) for value in rates]


def _spread(start: float | None, stop: float, groups: int) -> list[float]:
    if groups == 1:
        return [stop]
    if not start:
        return [stop / 10] * (groups - 1) + [stop]
    factor = (stop / start) ** (1 / (groups - 1))
    return [start * factor**i for i in range(groups)]


class GroupedOptimizer:
    """A torch optimizer over layer groups, with the lesson's lr, momentum and weight decay.

    Each layer group makes two parameter groups: the second holds the parameters of BatchNorm and LayerNorm and the
    biases of Linear and Conv layers, and is decayed only with `bn_wd`. With `true_wd` the decay is `p *= 1 - wd * lr`
    before the step, for parameters that have a gradient; without it, L2 through the optimizer.
    """

    def __init__(self, opt_func: OptFunc, groups: Sequence[LayerGroup], true_wd: bool = True, bn_wd: bool = True) -> None:
        parameters = [half for group in groups for half in _halves(group)]
        if not any(parameters):
            raise SettingError("the model has no parameters that are trained; unfreeze a layer group first")
        self.torch_opt = opt_func([{"params": half} for half in parameters], **_fused(opt_func, groups))
        self.true_wd, self.bn_wd = true_wd, bn_wd
        self.groups: list[dict[str, Any]] = self.torch_opt.param_groups
        first = self.groups[0]
        # Adam's kernel has the decoupled decay built in, in the same place: p *= 1 - lr * wd before the update
        self._decays_itself = true_wd and "decoupled_weight_decay" in first
        self._mom_key = next((key for key in ("momentum", "betas") if key in first), None)
        for group in self.groups:
            group["lr"] = 0.0
            if self._decays_itself:
                group["decoupled_weight_decay"] = True

    @property
    def mom(self) -> float | None:
        """The momentum of the last layer group (Adam's first beta); None where the optimizer has none."""
        if self._mom_key is None:
            return None
        value = self.groups[-1][self._mom_key]
        return float(value[0] if self._mom_key == "betas" else value)

    def set_wd(self, wd: float | Sequence[float]) -> None:
        """Set the weight decay: one number, or one for each layer group."""
        count = len(self.groups) // 2
        each = [float(wd)] * count if isinstance(wd, int | float) else [float(value) for value in wd]
        if len(each) != count or any(not 0 <= value < float("inf") for value in each):
            raise SettingError(f"wd is {wd!r}; expected a finite number of at least 0, or {count} of them")
        self._decay = [value for weights in each for value in (weights, weights if self.bn_wd else 0.0)]
        through_opt = self._decays_itself or not self.true_wd
        for group, value in zip(self.groups, self._decay, strict=True):
            group["weight_decay"] = value if through_opt else 0.0

    def set_rates(self, lrs: Sequence[float], mom: float | None) -> None:
        """Set the learning rate of each layer group, and the momentum of all unless it is None."""
        groups = self.groups
        for i, lr in enumerate(lrs):
            groups[2 * i]["lr"] = groups[2 * i + 1]["lr"] = lr
        if mom is None or self._mom_key is None:
            return
        if self._mom_key == "momentum":
            for group in groups:
                group["momentum"] = mom
        else:
            for group in groups:
                group["betas"] = (mom, *group["betas"][1:])

    def step(self) -> None:
        """Decay the weights (`true_wd`) and take one optimizer step."""
        if self.true_wd and not self._decays_itself:
            self._decay_weights()
        self.torch_opt.step()

    @torch.no_grad()
    def _decay_weights(self) -> None:
        for group, wd in zip(self.groups, self._decay, strict=True):
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if moved and wd:
                torch._foreach_mul_(moved, 1 - wd * group["lr"])  # pyright: ignore[reportPrivateUsage] -- as torch.optim itself does it

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.groups:
            for parameter in group["params"]:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """torch's own state of the optimizer: moments and hyper-parameters."""
        return self.torch_opt.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave."""
        self.torch_opt.load_state_dict(state)
        self.groups = self.torch_opt.param_groups


def _halves(group: LayerGroup) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """A layer group's trained parameters: those that are always decayed, and norms and biases."""
    weights: dict[int, nn.Parameter] = {}  # by id, so that tied weights come once
    norms_and_biases: dict[int, nn.Parameter] = {}
    for leaf in group:
        bias = leaf.bias if isinstance(leaf, _WITH_BIAS) else None
        for parameter in leaf.parameters():
            if parameter.requires_grad:
                second = isinstance(leaf, _NORMS) or parameter is bias
                (norms_and_biases if second else weights)[id(parameter)] = parameter
    return list(weights.values()), list(norms_and_biases.values())


def _fused(opt_func: OptFunc, groups: Sequence[LayerGroup]) -> dict[str, bool]:
    """Ask for torch's fused kernel where the optimizer offers it, and nothing in the model or call forbids it."""
    asked: dict[str, Any] = opt_func.keywords if isinstance(opt_func, partial) else {}
    try:
        offered = "fused" in inspect.signature(opt_func).parameters
    except (TypeError, ValueError):  # some callables have no signature
        return {}
    decided = asked.keys() & {"fused", "foreach", "capturable", "differentiable"}
    leaves_ = [leaf for group in groups for leaf in group]
    plain = all(p.is_floating_point() for leaf in leaves_ for p in leaf.parameters())
    sparse = any(getattr(leaf, "sparse", False) for leaf in leaves_)
    return {"fused": True} if offered and plain and not decided and not sparse else {}
