"""Call Adam's fused kernel directly, without the Python code of torch.optim around it.

The state is torch.optim's own, created as its first step creates it. The lists that the kernel takes are built once,
and parameter groups with the same settings share one call. The numbers equal torch.optim's: the kernel is the same.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer

# Moments of weights whose gradient stays zero (pixels that are always blank) shrink until they are denormal numbers,
# which take a CPU several times as long. Long before that they are too small to move a weight: below these bounds a
# step is under 1e-10 of the learning rate. Every FLUSH_EVERY steps, by the optimizer's count, they are set to zero.
FLUSH_EVERY = 128
_MIN_MEAN, _MIN_SQUARE = 1e-20, 1e-30
_MIN_EPS = 1e-10  # with a smaller eps the bounds would be too high
_SETTINGS = ("lr", "betas", "eps", "weight_decay", "decoupled_weight_decay")


@dataclass
class AdamCall:
    """One call of the kernel: the parameter groups it updates, and its lists of tensors."""

    groups: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    params: list[Tensor] = field(default_factory=list[Tensor])
    means: list[Tensor] = field(default_factory=list[Tensor])
    squares: list[Tensor] = field(default_factory=list[Tensor])
    steps: list[Tensor] = field(default_factory=list[Tensor])

    @torch.no_grad()
    def flush(self) -> None:
        """Every FLUSH_EVERY steps, set moments to zero that are too small to move a weight."""
        settings, on_cpu = self.groups[0], self.params[0].device.type == "cpu"
        if on_cpu and settings["eps"] >= _MIN_EPS and int(self.steps[0].item()) % FLUSH_EVERY == 0:
            for moments, bound in ((self.means, _MIN_MEAN), (self.squares, _MIN_SQUARE)):
                for tensor in moments:
                    torch.hardshrink(tensor, bound, out=tensor)


class FusedAdam:
    """Updates the parameters of an Adam or AdamW optimizer, once all of them have state."""

    def __init__(self, opt: Optimizer) -> None:
        self._opt = opt
        self._calls = adam_calls(opt, opt.param_groups)
        pairs = [(p, mean) for call in self._calls for p, mean in zip(call.params, call.means, strict=True)]
        self._states = [(parameter, opt.state[parameter], mean) for parameter, mean in pairs]

    def is_current(self) -> bool:
        """Whether the optimizer has the state that this one updates, and no hooks: a user may have changed both."""
        if has_hooks(self._opt):
            return False
        state = self._opt.state
        return all(state.get(p) is entry and entry.get("exp_avg") is mean for p, entry, mean in self._states)

    @classmethod
    def create_for(cls, opt: Optimizer) -> "FusedAdam | None":
        """Return one for `opt`, or None if it is another optimizer or a parameter has no gradient yet."""
        is_supported = (
            type(opt) in (Adam, AdamW)
            and not has_hooks(opt)
            and all(group["fused"] and not (group["amsgrad"] or group["maximize"]) for group in opt.param_groups)
        )
        if not is_supported:
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
        """Take one step. Returns False without a step if a parameter has no gradient: torch.optim handles that."""
        if any(_differ(call.groups) for call in self._calls):
            self._calls = adam_calls(self._opt, self._opt.param_groups)  # a user changed the settings of a group
        grads = [[p.grad for p in call.params if p.grad is not None] for call in self._calls]
        if any(len(call_grads) < len(call.params) for call, call_grads in zip(self._calls, grads, strict=True)):
            return False
        for call, call_grads in zip(self._calls, grads, strict=True):
            settings = call.groups[0]
            kernel = torch._fused_adamw_ if settings["decoupled_weight_decay"] else torch._fused_adam_  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] -- as torch.optim itself calls it
            torch._foreach_add_(call.steps, 1)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] -- as torch.optim itself calls it
            kernel(
                *(call.params, call_grads, call.means, call.squares, [], call.steps),
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


def has_hooks(opt: Optimizer) -> bool:
    """Whether hooks, or a method that a user put in its place, take part in the optimizer's step."""
    hooks = (opt._optimizer_step_pre_hooks, opt._optimizer_step_post_hooks)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType] -- there is no public way to ask
    module: Any = sys.modules[Optimizer.__module__]
    global_hooks = module._global_optimizer_pre_hooks, module._global_optimizer_post_hooks  # pyright: ignore[reportPrivateUsage] -- the same
    return any(map(bool, (*hooks, *global_hooks))) or "step" in vars(opt)  # pyright: ignore[reportUnknownArgumentType] -- the same


def adam_calls(opt: Optimizer, groups: Iterable[dict[str, Any]]) -> list[AdamCall]:
    """Return the kernel calls for these groups of `opt`: groups with the same settings share one."""
    calls: list[AdamCall] = []
    for group in groups:
        if not group["params"]:
            continue
        device = group["params"][0].device
        matching = (c for c in calls if not _differ([c.groups[0], group]) and c.params[0].device == device)
        call = next(matching, None)
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
