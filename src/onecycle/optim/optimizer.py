"""The lesson's lr, momentum and weight decay over any torch optimizer."""

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Real
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from onecycle.core.checks import unwrap_partial
from onecycle.errors import SettingError
from onecycle.optim.fused_adam import FusedAdam
from onecycle.optim.groups import BATCH_NORMS, LayerGroup

AdamW = partial(torch.optim.Adam, betas=(0.9, 0.99))  # the lesson's name; `true_wd` decouples the decay
OptFunc: TypeAlias = Callable[..., Optimizer]

_NORMS = (*BATCH_NORMS, nn.LayerNorm)
_WITH_BIAS = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


class GroupedOptimizer:
    """A torch optimizer over layer groups, with the lesson's lr, momentum and weight decay.

    Each layer group makes two parameter groups: the second holds the parameters of BatchNorm and LayerNorm and the
    biases of Linear and Conv layers, and is decayed only with `bn_wd`. With `true_wd` the decay is `p *= 1 - wd * lr`
    before the step, for parameters that have a gradient; without it, L2 through the optimizer.
    """

    def __init__(
        self, opt_func: OptFunc, groups: Sequence[LayerGroup], true_wd: bool = True, bn_wd: bool = True
    ) -> None:
        taken: set[int] = set()
        parameters = [half for group in groups for half in _halves(group, taken)]
        if not any(parameters):
            raise SettingError("the model has no parameters that are trained; unfreeze a layer group first")
        with without_compiler():
            self.torch_opt = opt_func([{"params": half} for half in parameters], **_fused(opt_func, groups))
        self.true_wd, self.bn_wd = true_wd, bn_wd
        self.groups: list[dict[str, Any]] = self.torch_opt.param_groups
        first = self.groups[0]
        # Adam's kernel has the decoupled decay built in, in the same place: p *= 1 - lr * wd before the update
        self._decays_itself = true_wd and "decoupled_weight_decay" in first
        self._fused: FusedAdam | None = None
        self._mom_key = next((key for key in ("momentum", "betas") if key in first), None)
        for group in self.groups:
            group["lr"] = 0.0
            if self._decays_itself:
                group["decoupled_weight_decay"] = True

    @property
    def momentum(self) -> float | None:
        """The momentum of the last layer group (Adam's first beta); None where the optimizer has none."""
        if self._mom_key is None:
            return None
        value = self.groups[-1][self._mom_key]
        return float(value[0] if self._mom_key == "betas" else value)

    def set_wd(self, wd: float | Sequence[float]) -> None:
        """Set the weight decay: one number, or one for each layer group."""
        count = len(self.groups) // 2
        try:
            given: Any = wd
            each = [float(given)] * count if isinstance(given, Real) else [float(value) for value in given]
        except (TypeError, ValueError):
            each = []
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
        if self._fused is None:
            self._fused = FusedAdam.over(self.torch_opt)
        if self._fused is not None and self._fused.step():
            return
        self._decay_weights()
        self.torch_opt.step()
        self._fused = None  # torch.optim may have made state for parameters that had none

    def has_state(self) -> bool:
        """Whether it has taken a step."""
        return bool(self.torch_opt.state)

    def is_fused(self) -> bool:
        """Whether Adam's kernel is called directly."""
        return self._fused is not None

    def decay_before_step(self, group: int) -> float:
        """The weight decay of a parameter group that is taken off before the step; 0 where the optimizer does it."""
        return float(self._decay[group]) if self.true_wd and not self._decays_itself else 0.0

    @torch.no_grad()
    def _decay_weights(self) -> None:
        for i, group in enumerate(self.groups):
            wd, moved = self.decay_before_step(i), [p for p in group["params"] if p.grad is not None]
            if moved and wd:
                torch._foreach_mul_(moved, 1 - wd * group["lr"])  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] -- as torch.optim itself does it

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.groups:
            for parameter in group["params"]:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """torch's own state of the optimizer: moments and hyper-parameters."""
        with without_compiler():
            return self.torch_opt.state_dict()

    def load_moments(self, state: dict[str, Any]) -> None:
        """Take over a saved state's moments and momentum, and keep our own settings (decay, kernel) otherwise."""
        kept = [{key: value for key, value in group.items() if key != self._mom_key} for group in self.groups]
        self.load_state_dict(state)
        for group, own in zip(self.groups, kept, strict=True):
            group.update(own)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` gave."""
        with without_compiler():
            self.torch_opt.load_state_dict(state)
        self.groups = self.torch_opt.param_groups
        self._fused = None  # it holds the tensors of the state before


@contextmanager
def without_compiler() -> Generator[None]:
    """Let torch.optim's bookkeeping not import torch.compile, as its decorators do: half a second and 80 MB.

    They keep the compiler out of these methods; where it was never imported there is none to keep out.
    """
    if "torch._dynamo" in sys.modules:
        yield
        return
    names = ("add_param_group", "state_dict", "load_state_dict")
    decorated = {name: getattr(Optimizer, name) for name in names}
    for name, method in decorated.items():
        setattr(Optimizer, name, getattr(method, "__wrapped__", method))
    try:
        yield
    finally:
        for name, method in decorated.items():
            setattr(Optimizer, name, method)


def _halves(group: LayerGroup, taken: set[int]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """A layer group's trained parameters: those that are always decayed, and norms and biases.

    `taken` are the ids of those that have a place already, so that tied weights get one.
    """
    weights: list[nn.Parameter] = []
    norms_and_biases: list[nn.Parameter] = []
    for leaf in group:
        bias = leaf.bias if isinstance(leaf, _WITH_BIAS) else None
        for parameter in leaf.parameters():
            if parameter.requires_grad and id(parameter) not in taken:
                taken.add(id(parameter))
                second = isinstance(leaf, _NORMS) or parameter is bias
                (norms_and_biases if second else weights).append(parameter)
    return weights, norms_and_biases


def _fused(opt_func: OptFunc, groups: Sequence[LayerGroup]) -> dict[str, bool]:
    """Ask for Adam's fused kernel, where nothing in the call or the model forbids it.

    Only Adam's: torch's fused SGD cannot take a parameter whose first gradient comes late.
    """
    asked: dict[str, Any] = opt_func.keywords if isinstance(opt_func, partial) else {}
    kind = unwrap_partial(opt_func)
    decided = asked.keys() & {"fused", "foreach", "capturable", "differentiable"}
    plain = all(parameter.is_floating_point() for group in groups for leaf in group for parameter in leaf.parameters())
    return {"fused": True} if kind in (torch.optim.Adam, torch.optim.AdamW) and plain and not decided else {}
