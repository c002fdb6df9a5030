"""The optimizer's step as lines of a program, so that a run of steps needs no Python between them.

The lines call the kernels that the optimizer itself calls. They find the gradients as g0, g1, …, the learning rate of
call k in `rates[i][k]`, the momentum in `moms[i]`, and the tensors of call k in `groups[k]`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from onecycle.optim.fused import FLUSH_EVERY, AdamCall, adam_calls
from onecycle.optim.optimizers import GroupedOptimizer


@dataclass
class Program:
    """The lines of one step, and the tensors they name."""

    lines: list[str] = field(default_factory=list[str])
    groups: list[list[list[Tensor]]] = field(default_factory=list[list[list[Tensor]]])
    layers: list[int] = field(default_factory=list[int])  # the layer group whose rate each call takes
    adam: list[AdamCall] = field(default_factory=list[AdamCall])

    def most_steps(self) -> int:
        """How many steps a run may have: moments are flushed at the same steps as without runs."""
        count = self.adam[0].steps[0] if self.adam else None
        if count is None or count.device.type != "cpu":
            return FLUSH_EVERY  # nothing is flushed, and looking at the count would wait for the device
        return FLUSH_EVERY - int(count.item()) % FLUSH_EVERY

    @torch.no_grad()
    def finish(self) -> None:
        """What is left to do after a run."""
        for call in self.adam:
            for step in call.steps[1:]:  # in a run the first counts for all
                step.copy_(call.steps[0])
            call.flush()


def program_of(opt: GroupedOptimizer, trained: Sequence[nn.Parameter]) -> Program | None:
    """The step of `opt`, which has taken its first; None for an optimizer whose step cannot be written down here.

    `trained` are the parameters that the gradients g0, g1, … belong to.
    """
    grads = {id(parameter): f"g{i}" for i, parameter in enumerate(trained)}
    groups = [group for group in opt.groups if group["params"]]
    if not all(id(parameter) in grads for group in groups for parameter in group["params"]):
        return None
    if opt.is_fused():
        return _adam(opt, grads)
    sgd = type(opt.torch_opt) is SGD
    if not sgd or any(group["maximize"] or group["differentiable"] or group["fused"] for group in groups):
        return None
    return _sgd(opt, grads)


def _adam(opt: GroupedOptimizer, grads: dict[int, str]) -> Program | None:
    program = Program()
    for layer, halves in enumerate(zip(opt.groups[::2], opt.groups[1::2], strict=True)):
        for call in adam_calls(opt.torch_opt, halves):
            k, settings = len(program.groups), call.groups[0]
            kernel = "_fused_adamw_" if settings["decoupled_weight_decay"] else "_fused_adam_"
            found = ", ".join(grads[id(parameter)] for parameter in call.params)
            program.lines += [
                f"groups[{k}][3][0].add_(1)",
                f"torch.ops.aten.{kernel}(groups[{k}][0], [{found}], groups[{k}][1], groups[{k}][2], none, "
                f"groups[{k}][3], lr=rates[i][{k}], beta1=moms[i], beta2={float(settings['betas'][1])!r}, "
                f"weight_decay={float(settings['weight_decay'])!r}, eps={float(settings['eps'])!r}, "
                "amsgrad=False, maximize=False)",
            ]
            params = [parameter.detach() for parameter in call.params]
            program.groups.append([params, call.means, call.squares, [call.steps[0]] * len(params)])
            program.layers.append(layer)
            program.adam.append(call)
    momenta = {group["betas"][0] for call in program.adam for group in call.groups}
    counts = {step.item() for call in program.adam for step in call.steps}
    return program if len(momenta) == len(counts) == 1 else None  # a run knows one of each


def _sgd(opt: GroupedOptimizer, grads: dict[int, str]) -> Program | None:
    """As torch.optim.SGD's single-tensor step, with the decoupled decay before it."""
    program = Program()
    for i, group in enumerate(opt.groups):
        if not group["params"]:
            continue
        k, wd, decoupled = len(program.groups), float(group["weight_decay"]), opt.decay_before_step(i)
        buffers = [opt.torch_opt.state[parameter].get("momentum_buffer") for parameter in group["params"]]
        if group["momentum"] and any(buffer is None for buffer in buffers):
            return None
        found = ", ".join(grads[id(parameter)] for parameter in group["params"])
        lines = [f"d{k} = [{found}]"]
        if decoupled:
            lines.insert(0, f"torch.ops.aten._foreach_mul_(groups[{k}][0], 1 - {decoupled!r} * rates[i][{k}])")
        if wd:
            lines.append(f"d{k} = torch.ops.aten._foreach_add(d{k}, groups[{k}][0], alpha={wd!r})")
        if group["momentum"]:
            lines += [
                f"torch.ops.aten._foreach_mul_(groups[{k}][1], moms[i])",
                f"torch.ops.aten._foreach_add_(groups[{k}][1], d{k}, alpha={1 - float(group['dampening'])!r})",
                f"d{k} = torch.ops.aten._foreach_add(d{k}, groups[{k}][1], alpha=moms[i])"
                if group["nesterov"]
                else f"d{k} = groups[{k}][1]",
            ]
        lines.append(f"torch.ops.aten._foreach_add_(groups[{k}][0], d{k}, alpha=-rates[i][{k}])")
        program.lines += lines
        params: list[Tensor] = [parameter.detach() for parameter in group["params"]]
        program.groups.append([params, [buffer for buffer in buffers if buffer is not None]])
        program.layers.append(i // 2)
    momenta: set[Any] = {group["momentum"] for group in opt.groups if group["params"]}
    return program if len(momenta) == 1 else None
