"""The optimizer's step as lines of a program, so that many steps run without Python between them.

The lines call the kernels that the optimizer itself calls; a comment names the overload. In them the gradients are g0,
g1, …, the tensors of call k are `groups[k]`, and the numbers of step i are `numbers[i]`: the learning rate of each
call, and the momentum last.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import SGD

from onecycle.optim.fused_adam import FLUSH_EVERY, AdamCall, adam_calls, has_hooks
from onecycle.optim.optimizer import GroupedOptimizer
from onecycle.optim.schedules import Rates


@dataclass
class SgdCall:
    """A parameter group of torch.optim.SGD as its step needs it.

    Attributes:
        layer: Index of the layer group.
        params: The parameters.
        buffers: Their momentum buffers; empty without momentum.
        wd: Weight decay through the gradient (L2).
        decoupled: Weight decay before the step.
        dampening: As in torch.optim.SGD.
        nesterov: As in torch.optim.SGD.
    """

    layer: int
    params: list[Tensor]
    buffers: list[Tensor]
    wd: float
    decoupled: float
    dampening: float
    nesterov: bool


@dataclass
class OptimizerProgram:
    """The lines of one step, and the tensors they name.

    Attributes:
        lines: Source lines.
        groups: Lists of tensors for each call.
        layers: The layer group whose learning rate each call takes.
        adam: The calls of Adam's kernel.
    """

    lines: list[str] = field(default_factory=list[str])
    groups: list[list[list[Tensor]]] = field(default_factory=list[list[list[Tensor]]])
    layers: list[int] = field(default_factory=list[int])
    adam: list[AdamCall] = field(default_factory=list[AdamCall])

    def run_length(self, most: int) -> int:
        """Return how many of the next `most` steps to run together: moments must be flushed at the same steps."""
        count = self.adam[0].steps[0] if self.adam else None
        if count is None or count.device.type != "cpu":
            return min(most, FLUSH_EVERY)  # nothing is flushed, and reading the count would wait for the device
        return min(most, FLUSH_EVERY - int(count.item()) % FLUSH_EVERY)

    def numbers(self, rates: Sequence[Rates], mom: float) -> list[list[float]]:
        """Return the numbers of each step; `mom` is the momentum if `rates` have none."""
        return [
            [*(lrs[layer] for layer in self.layers), mom if scheduled_mom is None else scheduled_mom]
            for lrs, scheduled_mom in rates
        ]

    def add(self, layer: int, lines: list[str], tensors: list[list[Tensor]]) -> None:
        """Add the lines and tensors of one call."""
        self.lines += lines
        self.groups.append(tensors)
        self.layers.append(layer)

    def add_adam(self, layer: int, call: AdamCall, grads: str) -> None:
        """Add a call of Adam's kernel. During a run the first step count serves for all parameters."""
        k, settings = len(self.groups), call.groups[0]
        kernel = "_fused_adamw_" if settings["decoupled_weight_decay"] else "_fused_adam_"
        lines = [
            f"groups[{k}][3][0].add_(1)",
            f"torch.ops.aten.{kernel}(groups[{k}][0], {grads}, groups[{k}][1], groups[{k}][2], none, groups[{k}][3], "
            f"lr=numbers[i][{k}], beta1=numbers[i][-1], beta2={float(settings['betas'][1])!r}, "
            f"weight_decay={float(settings['weight_decay'])!r}, eps={float(settings['eps'])!r}, "
            "amsgrad=False, maximize=False)  # default",
        ]
        self.adam.append(call)
        counts = [call.steps[0]] * len(call.steps)
        self.add(layer, lines, [detached(call.params), call.means, call.squares, counts])

    def add_sgd(self, call: SgdCall, grads: str) -> None:
        """Add a step of torch.optim.SGD in the order of its single-tensor code, after the decoupled decay."""
        k = len(self.groups)
        lines = [f"d{k} = {grads}"]
        if call.decoupled:
            lines.insert(
                0, f"torch.ops.aten._foreach_mul_(groups[{k}][0], 1 - {call.decoupled!r} * numbers[i][{k}])  # Scalar"
            )
        if call.wd:
            lines.append(f"d{k} = torch.ops.aten._foreach_add(d{k}, groups[{k}][0], alpha={call.wd!r})  # List")
        if call.buffers:
            lines += [
                f"torch.ops.aten._foreach_mul_(groups[{k}][1], numbers[i][-1])  # Scalar",
                f"torch.ops.aten._foreach_add_(groups[{k}][1], d{k}, alpha={1 - call.dampening!r})  # List",
                f"d{k} = torch.ops.aten._foreach_add(d{k}, groups[{k}][1], alpha=numbers[i][-1])  # List"
                if call.nesterov
                else f"d{k} = groups[{k}][1]",
            ]
        lines.append(f"torch.ops.aten._foreach_add_(groups[{k}][0], d{k}, alpha=-numbers[i][{k}])  # List")
        self.add(call.layer, lines, [detached(call.params), call.buffers])

    @torch.no_grad()
    def finish(self, steps: int) -> None:
        """Update step counts and flush moments after a run."""
        for call in self.adam:
            for step in call.steps[1:]:  # only the first was counted
                step.copy_(call.steps[0])
            call.flush()


ProgramT = TypeVar("ProgramT", bound=OptimizerProgram)


def program_of(
    kind: type[ProgramT], opt: GroupedOptimizer, trained: Sequence[nn.Parameter], has_gradient: Sequence[bool]
) -> ProgramT | None:
    """Return the step of an optimizer that has taken its first step, or None if there is no program for it.

    Args:
        kind: The kind of program.
        opt: The optimizer.
        trained: The parameters that the gradients g0, g1, … belong to.
        has_gradient: Which of them get a gradient.
    """
    names = {id(parameter): f"g{i}" for i, parameter in enumerate(trained) if has_gradient[i]}
    known = {id(parameter) for parameter in trained}
    if not all(id(parameter) in known for group in opt.groups for parameter in group["params"]):
        return None
    if has_hooks(opt.torch_opt) or any(parameter.grad is not None for parameter in trained):
        return None  # both take part in a step
    program = kind()

    def grads(params: Sequence[Tensor]) -> str:
        return f"[{', '.join(names[id(parameter)] for parameter in params)}]"

    adam, sgd = _adam_calls(opt) if opt.is_fused() else [], _sgd_calls(opt, names.keys())
    if not all(id(parameter) in names for _, call in adam for parameter in call.params):
        return None  # it has a state from an earlier fit, and no gradient now
    for layer, call in adam:
        program.add_adam(layer, call, grads(call.params))
    for call in sgd:
        program.add_sgd(call, grads(call.params))
    return program if program.groups else None


def _adam_calls(opt: GroupedOptimizer) -> list[tuple[int, AdamCall]]:
    """The kernel calls of `opt`, each with its layer group; empty if they differ in momentum or steps taken."""
    halves = enumerate(zip(opt.groups[::2], opt.groups[1::2], strict=True))
    calls = [(layer, call) for layer, groups in halves for call in adam_calls(opt.torch_opt, groups)]
    momenta = {group["betas"][0] for _, call in calls for group in call.groups}
    counts = set(torch.stack([step for _, call in calls for step in call.steps]).tolist())
    return calls if len(momenta) == len(counts) == 1 else []  # a program has one of each


def _sgd_calls(opt: GroupedOptimizer, with_gradient: Collection[int]) -> list[SgdCall]:
    """The groups of SGD; empty for another optimizer, and for settings that no program supports.

    As in torch, a parameter without a gradient is not in the step, nor does it decay.
    """
    groups = [group for group in opt.groups if group["params"]]
    if type(opt.torch_opt) is not SGD or any(g["maximize"] or g["differentiable"] or g["fused"] for g in groups):
        return []
    calls: list[SgdCall] = []
    for i, group in enumerate(opt.groups):
        params = [parameter for parameter in group["params"] if id(parameter) in with_gradient]
        buffers = [opt.torch_opt.state.get(parameter, {}).get("momentum_buffer") for parameter in params]
        if group["momentum"] and any(buffer is None for buffer in buffers):
            return []
        used: list[Tensor] = [buffer for buffer in buffers if buffer is not None and group["momentum"]]
        decays = float(group["weight_decay"]), opt.decay_before_step(i)
        if params:
            calls.append(SgdCall(i // 2, params, used, *decays, float(group["dampening"]), bool(group["nesterov"])))
    momenta: set[Any] = {group["momentum"] for group in groups}
    return calls if len(momenta) == 1 else []


def detached(params: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.detach() for parameter in params]
