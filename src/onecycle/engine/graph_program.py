"""The optimizer's step for a CUDA graph, in which every number that changes from step to step is a tensor.

A graph keeps what is no tensor as it was when the graph was recorded. torch's kernels take a learning rate as a tensor;
Adam's takes its momentum only as a number. There it stays at _STEADY, and the first moments m are scaled before and
after the kernel so that the step is the same, with s = (1 - _STEADY) / (1 - mom):

    _STEADY·(m·s·mom/_STEADY) + (1 - _STEADY)·grad = s·(mom·m + (1 - mom)·grad)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from onecycle.engine.optimizer_program import OptimizerProgram, SgdCall, detached
from onecycle.optim.fused_adam import AdamCall
from onecycle.optim.schedules import Rates

STEPS = 32  # in a graph; what is left of an epoch goes in graphs of one
_STEADY = 0.9


@dataclass
class GraphProgram(OptimizerProgram):
    """Lines that find tensors of one number in `numbers[i]`.

    Call k has its rate at 2k, and at 2k + 1 the share of a weight that decays. Then come, for Adam, the factors of the
    first moments before and after the kernel; the momentum is last. Each operator is named with its overload: to find
    one for a tensor, torch tries that for a number first, which waits for the device.
    """

    decays: list[float] = field(default_factory=list[float])
    taken: int = 0  # steps, by Adam's count

    def run_length(self, most: int) -> int:
        """How many of the next `most` steps make a run."""
        return STEPS if most >= STEPS else 1

    def numbers(self, plan: Sequence[Rates], mom: float) -> list[list[float]]:
        """The numbers of each step of `plan`; `mom` is the momentum where it has none."""
        found: list[list[float]] = []
        for step, (lrs, own) in enumerate(plan, self.taken + 1):
            mom = mom if own is None else own
            correction, factors = 1.0, list[float]()
            if self.adam:
                scale = (1 - _STEADY) / (1 - mom)
                correction = (1 - _STEADY**step) / (1 - mom**step) / scale
                factors = [scale * mom / _STEADY, 1 / scale]
            pairs = zip((lrs[layer] for layer in self.layers), self.decays, strict=True)
            rates = [number for lr, decay in pairs for number in (lr * correction, lr * decay)]
            found.append([*rates, *factors, mom])
        return found

    def add_adam(self, layer: int, call: AdamCall, grads: str) -> None:
        """Add a call of Adam's kernel. Waits for the device at the first one, for the count of steps."""
        k, settings, wd = len(self.groups), call.groups[0], float(call.groups[0]["weight_decay"])
        decoupled = settings["decoupled_weight_decay"]
        lines = [
            f"torch.ops.aten._foreach_add_.Scalar(groups[{k}][3], 1)",
            f"torch.ops.aten._foreach_mul_.Tensor(groups[{k}][1], numbers[i][-3])",
            f"torch.ops.aten._fused_adam_.tensor_lr(groups[{k}][0], {grads}, groups[{k}][1], groups[{k}][2], none, "
            f"groups[{k}][3], lr=numbers[i][{2 * k}], beta1={_STEADY}, beta2={float(settings['betas'][1])!r}, "
            f"weight_decay={0.0 if decoupled else wd!r}, eps={float(settings['eps'])!r}, "
            "amsgrad=False, maximize=False)",
            f"torch.ops.aten._foreach_mul_.Tensor(groups[{k}][1], numbers[i][-2])",
        ]
        if decoupled and wd:
            lines.insert(0, _decay(k))
        if not self.adam:
            self.taken = int(call.steps[0].item())
        self.adam.append(call)
        self.decays.append(wd if decoupled else 0.0)
        self.add(layer, lines, [detached(call.params), call.means, call.squares, call.steps])

    def add_sgd(self, call: SgdCall, grads: str) -> None:
        """Add a step of SGD."""
        k = len(self.groups)
        lines = [f"d{k} = {grads}"]
        if call.decoupled:
            lines.insert(0, _decay(k))
        if call.wd:
            lines.append(f"d{k} = torch.ops.aten._foreach_add.List(d{k}, groups[{k}][0], alpha={call.wd!r})")
        if call.buffers:
            lines += [
                f"torch.ops.aten._foreach_mul_.Tensor(groups[{k}][1], numbers[i][-1])",
                f"torch.ops.aten._foreach_add_.List(groups[{k}][1], d{k}, alpha={1 - call.dampening!r})",
            ]
            ahead = f"torch.ops.aten._foreach_mul.Tensor(groups[{k}][1], numbers[i][-1])"
            lines += [
                f"d{k} = torch.ops.aten._foreach_add.List(d{k}, {ahead})" if call.nesterov else f"d{k} = groups[{k}][1]"
            ]
        rated = f"torch.ops.aten._foreach_mul.Tensor(d{k}, numbers[i][{2 * k}])"
        lines.append(f"torch.ops.aten._foreach_sub_.List(groups[{k}][0], {rated})")
        self.decays.append(call.decoupled)
        self.add(call.layer, lines, [detached(call.params), call.buffers])

    def finish(self, steps: int) -> None:
        """Count the steps of a run; the lines have done the rest."""
        self.taken += steps


def _decay(k: int) -> str:
    """Not one product with 1 - share: its rounding would decay the weights otherwise, in every step."""
    share = f"torch.ops.aten._foreach_mul.Tensor(groups[{k}][0], numbers[i][{2 * k + 1}])"
    return f"torch.ops.aten._foreach_sub_.List(groups[{k}][0], {share})"
