"""The optimizer's step for a CUDA graph, in which every number that changes from step to step is a tensor.

A graph replays every number that is not a tensor with its value at recording. torch's kernels take a learning rate as a
tensor, but Adam's kernel takes its momentum only as a number. It stays at _BETA1, and the first moments m are scaled
before and after the kernel so that the step is the same, with s = (1 - _BETA1) / (1 - mom):

    _BETA1·(m·s·mom/_BETA1) + (1 - _BETA1)·grad = s·(mom·m + (1 - mom)·grad)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from onecycle.engine.optimizer_program import OptimizerProgram, SgdCall, detached
from onecycle.optim.fused_adam import AdamCall
from onecycle.optim.schedules import Rates

STEPS = 32  # in a graph; the rest of an epoch runs in graphs of one step
_BETA1 = 0.9


@dataclass
class GraphProgram(OptimizerProgram):
    """An optimizer program whose `numbers[i]` are one-element tensors.

    Call k has its learning rate at 2k, and at 2k + 1 the fraction by which weights decay. Then come, for Adam, the
    factors of the first moments before and after the kernel; the momentum is last. Each operator is named with its
    overload: to find the one for a tensor, torch would try the one for a number first, which waits for the device.
    """

    decays: list[float] = field(default_factory=list[float])
    steps_taken: int = 0  # by Adam's count

    def run_length(self, most: int) -> int:
        """Return how many of the next `most` steps to run together."""
        return STEPS if most >= STEPS else 1

    def numbers(self, rates: Sequence[Rates], mom: float) -> list[list[float]]:
        """Return the numbers of each step; `mom` is the momentum if `rates` have none."""
        numbers: list[list[float]] = []
        for step, (lrs, scheduled_mom) in enumerate(rates, self.steps_taken + 1):
            mom = mom if scheduled_mom is None else scheduled_mom
            correction, factors = 1.0, list[float]()
            if self.adam:
                scale = (1 - _BETA1) / (1 - mom)
                correction = (1 - _BETA1**step) / (1 - mom**step) / scale
                factors = [scale * mom / _BETA1, 1 / scale]
            pairs = zip((lrs[layer] for layer in self.layers), self.decays, strict=True)
            scaled = [number for lr, decay in pairs for number in (lr * correction, lr * decay)]
            numbers.append([*scaled, *factors, mom])
        return numbers

    def add_adam(self, layer: int, call: AdamCall, grads: str) -> None:
        """Add a call of Adam's kernel. The first one waits for the device, for the count of steps."""
        k, settings, wd = len(self.groups), call.groups[0], float(call.groups[0]["weight_decay"])
        decoupled = settings["decoupled_weight_decay"]
        lines = [
            f"torch.ops.aten._foreach_add_.Scalar(groups[{k}][3], 1)",
            f"torch.ops.aten._foreach_mul_.Tensor(groups[{k}][1], numbers[i][-3])",
            f"torch.ops.aten._fused_adam_.tensor_lr(groups[{k}][0], {grads}, groups[{k}][1], groups[{k}][2], none, "
            f"groups[{k}][3], lr=numbers[i][{2 * k}], beta1={_BETA1}, beta2={float(settings['betas'][1])!r}, "
            f"weight_decay={0.0 if decoupled else wd!r}, eps={float(settings['eps'])!r}, "
            "amsgrad=False, maximize=False)",
            f"torch.ops.aten._foreach_mul_.Tensor(groups[{k}][1], numbers[i][-2])",
        ]
        if decoupled and wd:
            lines.insert(0, _decay(k))
        if not self.adam:
            self.steps_taken = int(call.steps[0].item())
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
        """Count the steps of a run."""
        self.steps_taken += steps


def _decay(k: int) -> str:
    """Subtract the decayed fraction. A product with 1 - fraction would round differently, in every step."""
    fraction = f"torch.ops.aten._foreach_mul.Tensor(groups[{k}][0], numbers[i][{2 * k + 1}])"
    return f"torch.ops.aten._foreach_sub_.List(groups[{k}][0], {fraction})"
