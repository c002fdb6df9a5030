"""The lesson's learning rate, momentum and weight decay on top of any torch optimizer."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import Any, TypeAlias, cast

import torch
from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.optimizer import ParamsT

from onecycle.core.checks import unwrap_partial
from onecycle.core.process import without_compiler
from onecycle.errors import SettingError
from onecycle.optim.fused_adam import FusedAdam
from onecycle.optim.groups import BATCH_NORMS, LayerGroup

OptFunc: TypeAlias = Callable[..., Optimizer]
"""Makes a torch optimizer from parameter groups: an optimizer class, or a function or partial with more settings."""

_NORMS = (*BATCH_NORMS, nn.LayerNorm)
_WITH_BIAS = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def AdamW(params: ParamsT, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.99), **settings: Any) -> Adam:  # noqa: N802 -- the lesson's name for it
    """Make the lesson's optimizer: torch.optim.Adam with betas (0.9, 0.99).

    The Learner decouples the weight decay (`true_wd=True`), which makes Adam AdamW (https://arxiv.org/abs/1711.05101).

    Args:
        params: Parameters or parameter groups.
        lr: Learning rate; a schedule replaces it.
        betas: Coefficients of the running averages; a schedule replaces the first one by its momentum.
        **settings: Further settings of torch.optim.Adam.

    Returns:
        The optimizer.

    Example:
        >>> Learner(data, model, opt_func=partial(AdamW, eps=1e-6))
    """
    return Adam(params, lr=lr, betas=betas, **settings)


def optimizer_class(opt_func: Any) -> Any:
    """Return the optimizer class that `opt_func` creates, or the function itself if it is a user's."""
    function = unwrap_partial(opt_func)
    return Adam if function is AdamW else function


class GroupedOptimizer:
    """A torch optimizer over layer groups, with the lesson's learning rate, momentum and weight decay.

    Each layer group makes two parameter groups: the second holds the parameters of BatchNorm and LayerNorm and the
    biases of Linear and Conv layers, and is decayed only with `bn_wd`. With `true_wd` the decay is `p *= 1 - wd * lr`
    before the step, for parameters that have a gradient; without it, it is L2 through the optimizer.

    Args:
        opt_func: Makes the torch optimizer.
        groups: The layer groups.
        true_wd: Decouple the weight decay from the gradient.
        bn_wd: Decay normalisation layers and biases too.

    Attributes:
        torch_opt: The torch optimizer.
        groups: Its parameter groups.
    """

    def __init__(
        self, opt_func: OptFunc, groups: Sequence[LayerGroup], true_wd: bool = True, bn_wd: bool = True
    ) -> None:
        taken: set[int] = set()
        parameters = [half for group in groups for half in _halves(group, taken)]
        if not any(parameters):
            raise SettingError("the model has no trainable parameters; unfreeze a layer group first")
        with without_compiler():
            self.torch_opt = opt_func([{"params": half} for half in parameters], **_fused(opt_func, groups))
        self.true_wd, self.bn_wd = true_wd, bn_wd
        self.groups: list[dict[str, Any]] = self.torch_opt.param_groups
        first = self.groups[0]
        # Adam's kernel includes the decoupled decay, at the same point: p *= 1 - lr * wd before the update
        self._decays_itself = true_wd and "decoupled_weight_decay" in first
        self._fused: FusedAdam | None = None
        self._mom_key = next((key for key in ("momentum", "betas") if key in first), None)
        for group in self.groups:
            group["lr"] = 0.0
            if self._decays_itself:
                group["decoupled_weight_decay"] = True

    @property
    def momentum(self) -> float | None:
        """The momentum of the last layer group (Adam's first beta), or None if the optimizer has none."""
        if self._mom_key is None:
            return None
        value = self.groups[-1][self._mom_key]
        return float(value[0] if self._mom_key == "betas" else value)

    def set_wd(self, wd: float | Sequence[float]) -> None:
        """Set the weight decay: one number, or one for each layer group."""
        count, value = len(self.groups) // 2, cast(Any, wd)
        try:
            each = [float(value)] * count if isinstance(value, Real) else [float(decay) for decay in value]
        except (TypeError, ValueError):
            each = []
        if len(each) != count or any(not 0 <= decay < float("inf") for decay in each):
            raise SettingError(
                f"wd is {wd!r}; expected a finite number of at least 0, or {count} of them, one a layer group"
            )
        self._decay = [decay for weights in each for decay in (weights, weights if self.bn_wd else 0.0)]
        through_opt = self._decays_itself or not self.true_wd
        for group, decay in zip(self.groups, self._decay, strict=True):
            group["weight_decay"] = decay if through_opt else 0.0

    def set_rates(self, lrs: Sequence[float], mom: float | None) -> None:
        """Set the learning rate of each layer group, and the momentum of all groups unless it is None."""
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
            self._fused = FusedAdam.create_for(self.torch_opt)
        if self._fused is not None and self._fused.step():
            return
        self._decay_weights()
        self.torch_opt.step()
        self._fused = None  # torch.optim may have created state for parameters that had none

    def has_state(self) -> bool:
        """Whether it has taken a step."""
        return bool(self.torch_opt.state)

    def is_fused(self) -> bool:
        """Whether Adam's kernel is called directly."""
        return self._fused is not None

    def decay_before_step(self, group: int) -> float:
        """The decay applied to a parameter group before the step; 0 if the optimizer applies it."""
        return float(self._decay[group]) if self.true_wd and not self._decays_itself else 0.0

    @torch.no_grad()
    def _decay_weights(self) -> None:
        for i, group in enumerate(self.groups):
            wd, updated = self.decay_before_step(i), [p for p in group["params"] if p.grad is not None]
            if updated and wd:
                torch._foreach_mul_(updated, 1 - wd * group["lr"])  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] -- as torch.optim itself does it

    def zero_grad(self) -> None:
        """Set the gradients to None."""
        for group in self.groups:
            for parameter in group["params"]:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the torch optimizer: moments and hyper-parameters."""
        with without_compiler():
            return self.torch_opt.state_dict()

    def load_moments(self, state: dict[str, Any]) -> None:
        """Load the moments and momentum of a saved state, and keep all other settings (decay, kernel) as they are."""
        settings = [{key: value for key, value in group.items() if key != self._mom_key} for group in self.groups]
        self.load_state_dict(state)
        for group, own in zip(self.groups, settings, strict=True):
            group.update(own)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        with without_compiler():
            self.torch_opt.load_state_dict(state)
        self.groups = self.torch_opt.param_groups
        self._fused = None  # it holds the tensors of the old state


def _halves(group: LayerGroup, taken: set[int]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split a layer group's trainable parameters into those that are always decayed, and norms and biases.

    `taken` holds the ids of the parameters that are in a group already, so that tied weights are in one only.
    """
    weights: list[nn.Parameter] = []
    norms_and_biases: list[nn.Parameter] = []
    for leaf in group:
        bias = leaf.bias if isinstance(leaf, _WITH_BIAS) else None
        for parameter in leaf.parameters():
            if parameter.requires_grad and id(parameter) not in taken:
                taken.add(id(parameter))
                is_norm_or_bias = isinstance(leaf, _NORMS) or parameter is bias
                (norms_and_biases if is_norm_or_bias else weights).append(parameter)
    return weights, norms_and_biases


def _fused(opt_func: OptFunc, groups: Sequence[LayerGroup]) -> dict[str, bool]:
    """Ask for Adam's fused kernel, unless the user's settings or the model forbid it.

    Only Adam's: torch's fused SGD does not accept a parameter whose first gradient comes late.
    """
    settings: dict[str, Any] = opt_func.keywords if isinstance(opt_func, partial) else {}
    is_adam = optimizer_class(opt_func) in (Adam, torch.optim.AdamW)
    is_decided = settings.keys() & {"fused", "foreach", "capturable", "differentiable"}
    is_float = all(
        parameter.is_floating_point() for group in groups for leaf in group for parameter in leaf.parameters()
    )
    return {"fused": True} if is_adam and is_float and not is_decided else {}
