"""Adam's fused kernel called directly, without the Python of torch.optim around it.

The state is torch.optim's own, made as its first step makes it. The lists that the kernel takes are kept, and parameter
groups that have the same settings share one call. The numbers are torch.optim's: it is the same kernel.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

# Moments of weights whose gradient stays zero (pixels that are never inked) shrink until they are denormal numbers,
# which take a CPU several times as long. Well before that they are too small to move a weight: below these bounds a
# step is under 1e-10 of the learning rate. Every so many steps, by the optimizer's own count, they are set to zero.
FLUSH_EVERY = 128
_NO_MEAN, _NO_SQUARE = 1e-20, 1e-30
_LEAST_EPS = 1e-10  # with a smaller one the bounds would be too high
_SETTINGS = ("lr", "betas", "eps", "weight_decay", "decoupled_weight_decay")


@dataclass
class AdamCall:
    """The parameter groups that one call of the kernel steps, and its lists."""

    groups: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    params: list[Tensor] = field(default_factory=list[Tensor])
    means: list[Tensor] = field(default_factory=list[Tensor])
    squares: list[Tensor] = field(default_factory=list[Tensor])
    steps: list[Tensor] = field(default_factory=list[Tensor])

    @torch.no_grad()
    def flush(self) -> None:
        """Set moments to zero that are too small to move a weight, where it is time to."""
        settings, on_cpu = self.groups[0], self.params[0].device.type == "cpu"
        if on_cpu and settings["eps"] >= _LEAST_EPS and int(self.steps[0].item()) % FLUSH_EVERY == 0:
            for moments, bound in ((self.means, _NO_MEAN), (self.squares, _NO_SQUARE)):
                for tensor in moments:
                    torch.hardshrink(tensor, bound, out=tensor)


class FusedAdam:
    """Steps the parameters of an Adam or AdamW, once all of them have a state."""

    def __init__(self, opt: Optimizer) -> None:
        self._opt = opt
        self._calls = adam_calls(opt, opt.param_groups)

    @classmethod
    def over(cls, opt: Optimizer) -> "FusedAdam | None":
        """For `opt` where that is possible; None for another optimizer, and where a parameter has no gradient yet."""
        plain = type(opt) in (Adam, AdamW) and all(
            group["fused"] and not (group["amsgrad"] or group["maximize"]) for group in opt.param_groups
        )
        if not plain:
            return None
        params = [parameter for group in opt.param_groups for parameter in group["params"]]
        if any(parameter.grad is None and not opt.state.get(parameter) for parameter in params):
            return None
        for parameter in params:
            if not opt.state.get(parameter):
                opt.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                }
        return cls(opt)

    @torch.no_grad()
    def step(self) -> bool:
        """Take one step. False, and nothing done, where a parameter has no gradient: that is for torch.optim."""
        if any(_differ(call.groups) for call in self._calls):
            self._calls = adam_calls(self._opt, self._opt.param_groups)  # somebody set one group apart from another
        grads = [[p.grad for p in call.params if p.grad is not None] for call in self._calls]
        if any(len(found) < len(call.params) for call, found in zip(self._calls, grads, strict=True)):
            return False
        for call, found in zip(self._calls, grads, strict=True):
            settings = call.groups[0]
            kernel = torch._fused_adamw_ if settings["decoupled_weight_decay"] else torch._fused_adam_  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] -- as torch.optim itself calls it
            torch._foreach_add_(call.steps, 1)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] -- as torch.optim itself calls it
            kernel(
                *(call.params, found, call.means, call.squares, [], call.steps),
                lr=settings["lr"],
                beta1=settings["betas"][0],
                beta2=settings["betas"][1],
                weight_decay=settings["weight_decay"],
                eps=settings["eps"],
                amsgrad=False,
                maximize=False,
            )
            call.flush()
        return True


def adam_calls(opt: Optimizer, groups: Iterable[dict[str, Any]]) -> list[AdamCall]:
    """The calls that step these groups of `opt` once: those with the same settings share one."""
    calls: list[AdamCall] = []
    for group in groups:
        if not group["params"]:
            continue
        device = group["params"][0].device
        same = (c for c in calls if not _differ([c.groups[0], group]) and c.params[0].device == device)
        call = next(same, None)
        if call is None:
            calls.append(call := AdamCall())
        call.groups.append(group)
        for parameter in group["params"]:
            state = opt.state[parameter]
            call.params.append(parameter)
            call.means.append(state["exp_avg"])
            call.squares.append(state["exp_avg_sq"])
            call.steps.append(state["step"])
    return calls


def _differ(groups: list[dict[str, Any]]) -> bool:
    first = groups[0]
    return any(group[name] != first[name] for group in groups[1:] for name in _SETTINGS)
