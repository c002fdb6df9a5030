"""Which engine runs the steps: eager, or a captured one where that pays."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.core.errors import SettingError, did_you_mean
from onecycle.data.batches import Batches, InMemoryLoader
from onecycle.optim.graph_program import GraphProgram
from onecycle.optim.program import Program, program_of
from onecycle.train.callbacks import Fit
from onecycle.train.capture import Captured, CapturedScores
from onecycle.train.epoch import Epoch, in_runs, one_by_one
from onecycle.train.metrics import Metric
from onecycle.train.step import Forward, LossFunc, Step, eager, plain_step, step_with_hooks
from onecycle.train.tally import is_batchwise
from onecycle.train.trace import CannotCaptureError

ENGINES = ("auto", "eager", "fast")
_WORTH_IT = 600  # steps: a captured one saves about 0.15 ms of small models, capturing takes about 0.1 s


class Engine:
    """Runs the steps of a learner's fits; a captured step is kept from one epoch and fit to the next.

    `auto` captures on the CPU when the steps left earn it back, `fast` always, `eager` never. What cannot be captured
    stays eager, and one line says why.
    """

    def __init__(self, kind: str) -> None:
        if kind not in ENGINES:
            raise SettingError(f'unknown engine "{kind}"; expected auto, eager or fast{did_you_mean(kind, ENGINES)}')
        self.kind = kind
        self._captured: Captured | None = None
        self._scores: CapturedScores | None = None
        self._no_scores_of: Any = None  # what could not be captured
        self._refused: str | None = None
        self._no_graphs: str | None = None
        self._refused_in: Fit | None = None  # it is not tried again in the same fit

    def train(self, epoch: Epoch, forward: Forward, steps_left: int, say: Callable[[str], None]) -> Iterator[int]:
        """Train an epoch, and give the number of batches done after each step, or each run of them."""
        fit, hooks = epoch.fit, epoch.hooks
        loss_and_grads = eager(fit, epoch.loss_func, hooks["on_backward_begin"], forward)
        wanted = self._wanted(fit, steps_left) and self._refused_in is not fit
        if wanted and hooks["on_backward_begin"]:
            self._refuse(fit, "a callback wants the loss before the backward pass", say)
            wanted = False
        if wanted:
            loss_and_grads = self._fast(epoch, forward, loss_and_grads, say)
        step = step_with_hooks(fit, loss_and_grads, hooks) if epoch.is_watched() else plain_step(fit, loss_and_grads)
        steps, done = one_by_one(epoch, step), fit.num_batch
        if wanted and epoch.can_run():
            if done < len(epoch) and not (self._is_captured(epoch) and fit.opt.has_state()):
                yield (done := next(steps))  # the first step captures, and makes the optimizer's state
            captured = self._captured if self._is_captured(epoch) else None
            if captured is not None and done < len(epoch):
                fit.opt.set_rates(*epoch.plan[done])
                if program := program_of(_kind(fit.device), fit.opt, captured.trained):
                    for ran in in_runs(epoch, done, captured, program):
                        self._say_no_graphs(captured.no_graphs(), say)
                        yield ran
                    return
        yield from steps

    def scores(
        self, model: nn.Module, loader: Batches, loss_func: LossFunc, metrics: Sequence[Metric], forward: Forward
    ) -> Tensor | None:
        """Loss and metrics of the loader's whole batches, a row each; None where validation is not captured.

        It is where training is. The model is in eval mode.
        """
        count = len(loader.tensors[0]) // loader.batch_size if isinstance(loader, InMemoryLoader) else 0
        if self._captured is None or not isinstance(loader, InMemoryLoader) or not count or loader.shuffle:
            return None
        if not is_batchwise(metrics) or self._no_scores_of == (model, loss_func, *metrics):
            return None
        if self._scores is None or not self._scores.is_of(model, loss_func, metrics, loader):
            xb, yb = next(loader.epoch(0))
            try:
                self._scores = CapturedScores(model, loss_func, metrics, xb, yb, forward)
            except CannotCaptureError:  # nothing is lost: validation goes on eagerly
                self._no_scores_of = (model, loss_func, *metrics)
                return None
        return self._scores(loader, count)

    def _wanted(self, fit: Fit, steps_left: int) -> bool:
        if self.kind != "auto" or self._captured is not None:
            return self.kind != "eager"
        return fit.device.type == "cpu" and steps_left >= _WORTH_IT

    def _is_captured(self, epoch: Epoch) -> bool:
        captured, loader = self._captured, epoch.loader
        if captured is None or not captured.is_of(epoch.fit.model, epoch.loss_func):
            return False
        return not isinstance(loader, InMemoryLoader) or captured.takes(loader)

    def _fast(self, epoch: Epoch, forward: Forward, loss_and_grads: Step, say: Callable[[str], None]) -> Step:
        """Captures on the first batch; other shapes, and all batches where that fails, are left to `loss_and_grads`."""
        fit = epoch.fit
        captured = self._captured if self._is_captured(epoch) else None

        def step(xb: Any, yb: Any) -> Tensor:
            nonlocal captured
            if captured is None and self._refused_in is not fit:
                try:
                    captured = self._captured = Captured(fit.model, epoch.loss_func, xb, yb, forward)
                except CannotCaptureError as error:
                    self._refuse(fit, str(error), say)
            if captured is not None and captured.fits(xb, yb):
                return captured(xb, yb)
            return loss_and_grads(xb, yb)

        return step

    def _say_no_graphs(self, reason: str | None, say: Callable[[str], None]) -> None:
        if reason and reason != self._no_graphs:
            say(f"engine: no CUDA graphs, because {reason}")
            self._no_graphs = reason

    def _refuse(self, fit: Fit, reason: str, say: Callable[[str], None]) -> None:
        self._refused_in = fit
        if reason != self._refused:
            say(f"engine: eager, because {reason}")
        self._refused = reason


def _kind(device: torch.device) -> type[Program]:
    return GraphProgram if device.type == "cuda" else Program
