"""The optimizer's step for a CUDA graph, in which every number that changes from step to step is a tensor.

A graph keeps what is no tensor as it was when the graph was recorded. torch's kernels take a learning rate as a tensor;
Adam's takes its momentum only as a number. There it stays at _STEADY, and the first moments m are scaled before and
after the kernel so that the step is the same, with s = (1 - _STEADY) / (1 - mom):

    _STEADY·(m·s·mom/_STEADY) + (1 - _STEADY)·grad = s·(mom·m + (1 - mom)·grad)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from onecycle.optim.fused import adam_calls
from onecycle.optim.optimizers import GroupedOptimizer
from onecycle.optim.program import Program, SgdCall, grad_names, sgd_calls
from onecycle.optim.schedules import Rates

STEPS = 32  # in a graph; what is left of an epoch goes in graphs of one
_STEADY = 0.9
_MOST_MOM = 1 - 1e-6  # at 1 Adam's step is not defined


@dataclass
class GraphProgram(Program):
    """Lines that find tensors of one number in `numbers[i]`.

    Call k has its rate at 2k, and at 2k + 1 what its decay leaves of a weight. Then come, for Adam, the factors of the
    first moments before and after the kernel; the momentum is last.
    """

    decays: list[float] = field(default_factory=list[float])
    taken: int = 0  # steps, by Adam's count

    def length(self, most: int) -> int:
        """How many of the next `most` steps make a run."""
        return STEPS if most >= STEPS else 1

    def numbers(self, plan: Sequence[Rates], mom: float) -> list[list[float]]:
        """The numbers of each step of `plan`; `mom` is the momentum where it has none."""
        found: list[list[float]] = []
        for step, (lrs, own) in enumerate(plan, self.taken + 1):
            mom = min(mom if own is None else own, _MOST_MOM)
            correction, factors = 1.0, list[float]()
            if self.adam:
                scale = (1 - _STEADY) / (1 - mom)
                correction = (1 - _STEADY**step) / (1 - mom**step) / scale
                factors = [scale * mom / _STEADY, 1 / scale]
            pairs = zip((lrs[layer] for layer in self.layers), self.decays, strict=True)
            rates = [number for lr, decay in pairs for number in (lr * correction, 1 - lr * decay)]
            found.append([*rates, *factors, mom])
        return found

    def finish(self, steps: int) -> None:
        """Count the steps of a run; the lines have done the rest."""
        self.taken += steps


def graph_program_of(opt: GroupedOptimizer, trained: Sequence[nn.Parameter]) -> GraphProgram | None:
    """As `program_of`, for CUDA graphs. Waits for the device."""
    grads = grad_names(opt, trained)
    if grads is None:
        return None
    if opt.is_fused():
        return _adam(opt, grads)
    calls = sgd_calls(opt)
    return None if calls is None else _sgd(calls, grads)


def _adam(opt: GroupedOptimizer, grads: dict[int, str]) -> GraphProgram | None:
    program = GraphProgram()
    for layer, halves in enumerate(zip(opt.groups[::2], opt.groups[1::2], strict=True)):
        for call in adam_calls(opt.torch_opt, halves):
            k, settings, wd = len(program.groups), call.groups[0], float(call.groups[0]["weight_decay"])
            decoupled = settings["decoupled_weight_decay"]
            if decoupled and wd:
                program.lines.append(f"torch.ops.aten._foreach_mul_(groups[{k}][0], numbers[i][{2 * k + 1}])")
            program.lines += [
                f"torch.ops.aten._foreach_add_(groups[{k}][3], 1)",
                f"torch.ops.aten._foreach_mul_(groups[{k}][1], numbers[i][-3])",
                f"torch.ops.aten._fused_adam_(groups[{k}][0], [{', '.join(grads[id(p)] for p in call.params)}], "
                f"groups[{k}][1], groups[{k}][2], none, groups[{k}][3], lr=numbers[i][{2 * k}], beta1={_STEADY}, "
                f"beta2={float(settings['betas'][1])!r}, weight_decay={0.0 if decoupled else wd!r}, "
                f"eps={float(settings['eps'])!r}, amsgrad=False, maximize=False)",
                f"torch.ops.aten._foreach_mul_(groups[{k}][1], numbers[i][-2])",
            ]
            program.groups.append([[p.detach() for p in call.params], call.means, call.squares, call.steps])
            program.layers.append(layer)
            program.decays.append(wd if decoupled else 0.0)
            program.adam.append(call)
    momenta = {group["betas"][0] for call in program.adam for group in call.groups}
    counts = set(torch.stack([step for call in program.adam for step in call.steps]).tolist())
    if len(momenta) != 1 or len(counts) != 1:
        return None  # a run knows one of each
    program.taken = int(counts.pop())
    return program


def _sgd(calls: Sequence[SgdCall], grads: dict[int, str]) -> GraphProgram:
    program = GraphProgram()
    for k, call in enumerate(calls):
        if call.decoupled:
            program.lines.append(f"torch.ops.aten._foreach_mul_(groups[{k}][0], numbers[i][{2 * k + 1}])")
        program.lines.append(f"d{k} = [{', '.join(grads[id(p)] for p in call.params)}]")
        if call.wd:
            program.lines.append(f"d{k} = torch.ops.aten._foreach_add(d{k}, groups[{k}][0], alpha={call.wd!r})")
        if call.buffers:
            program.lines += [
                f"torch.ops.aten._foreach_mul_(groups[{k}][1], numbers[i][-1])",
                f"torch.ops.aten._foreach_add_(groups[{k}][1], d{k}, alpha={1 - call.dampening!r})",
                f"d{k} = torch.ops.aten._foreach_add(d{k}, torch.ops.aten._foreach_mul(groups[{k}][1], numbers[i][-1]))"
                if call.nesterov
                else f"d{k} = groups[{k}][1]",
            ]
        program.lines.append(
            f"torch.ops.aten._foreach_sub_(groups[{k}][0], torch.ops.aten._foreach_mul(d{k}, numbers[i][{2 * k}]))"
        )
        program.groups.append([[p.detach() for p in call.params], call.buffers])
        program.layers.append(call.layer)
        program.decays.append(call.decoupled)
    return program
