"""The choice between eager steps and a captured one, and runs of captured steps."""

import time
from collections.abc import Callable, Iterator
from typing import Any, get_args

import torch
from torch import Tensor, nn

from onecycle.core.choices import EngineName
from onecycle.data.loaders import InMemoryLoader, Loader
from onecycle.engine.capture import CapturedScores, CapturedStep
from onecycle.engine.graph_program import GraphProgram
from onecycle.engine.optimizer_program import OptimizerProgram, program_of
from onecycle.engine.trace import CannotCaptureError
from onecycle.errors import SettingError, did_you_mean
from onecycle.train.checks import FAILURES, explain
from onecycle.train.fit import Fit
from onecycle.train.loop import EagerEngine, Engine, Epoch, eager_gradients, eager_steps
from onecycle.train.scores import is_batchwise
from onecycle.train.step import Gradients, Objective

MIN_STEPS_TO_CAPTURE = 600  # a captured step saves about 0.15 ms of small models, capturing takes about 0.1 s
_MAX_RUN_SECONDS = 0.05  # so that the display updates and Ctrl-C is handled


def make_engine(name: EngineName) -> Engine:
    """Return the engine of that name. Raises SettingError for an unknown one."""
    names = get_args(EngineName)
    if name not in names:
        raise SettingError(f'unknown engine "{name}"; expected auto, eager or fast{did_you_mean(name, names)}')
    return EagerEngine() if name == "eager" else FastEngine(always=name == "fast")


class FastEngine:
    """Runs captured steps if that is worthwhile. A step that cannot be captured runs eagerly, and a message says why.

    A captured step is reused by later epochs and fits.

    Args:
        always: Capture on any device and for any number of steps ("fast"); otherwise ("auto") only on the CPU, if the
            steps left earn the time of capturing back.

    Attributes:
        captured: The captured step, or None.
        captured_scores: The captured validation step, or None.
        fallback_reason: Why the last step was not captured, or None.
    """

    def __init__(self, always: bool) -> None:
        self.captured: CapturedStep | None = None
        self.captured_scores: CapturedScores | None = None
        self.fallback_reason: str | None = None
        self._always = always
        self._refused_in: Fit | None = None  # capturing is not tried again in the same fit
        self._uncapturable_scores: Any = None  # model, loss and metrics that could not be captured
        self._graph_fallback: str | None = None

    def steps(self, epoch: Epoch) -> Iterator[int]:
        """Train an epoch; yield the number of batches done after each step or run of steps."""
        fit, gradients = epoch.run.fit, eager_gradients(epoch)
        if not self._should_capture(epoch):
            yield from eager_steps(epoch, gradients)
            return
        steps, done = eager_steps(epoch, self._captured_gradients(epoch, gradients)), fit.num_batch
        if _can_run_together(epoch):
            if done < len(epoch) and not (self._is_captured(epoch) and fit.opt.has_state()):
                yield (done := next(steps))  # the first step captures, and creates the optimizer's state
            captured = self.captured if self._is_captured(epoch) else None
            if captured is not None and done < len(epoch):
                fit.opt.set_rates(*epoch.rates[done])
                if program := program_of(_program_type(fit.device), fit.opt, captured.trained):
                    for ran in _run_together(epoch, done, captured, program):
                        self._report_graph_fallback(captured.graph_fallback_reason(), epoch.run.display.message)
                        yield ran
                    return
        yield from steps

    def scores(self, model: nn.Module, loader: Loader, objective: Objective) -> Tensor | None:
        """Return loss and metrics of the loader's whole batches, or None if validation is not captured.

        Validation is captured if training is. The model must be in eval mode.
        """
        if self.captured is None or not isinstance(loader, InMemoryLoader) or loader.shuffle:
            return None
        loss_func, metrics, count = objective.loss_func, objective.metrics, len(loader.tensors[0]) // loader.batch_size
        if not count or objective.inverse_transform is not None or not is_batchwise(metrics):
            return None
        if self._uncapturable_scores == (model, loss_func, *metrics):
            return None
        if self.captured_scores is None or not self.captured_scores.matches(model, loss_func, metrics, loader):
            xb, yb = next(loader.epoch(0))
            try:
                self.captured_scores = CapturedScores(model, objective, xb, yb)
            except CannotCaptureError:  # nothing is lost: validation goes on eagerly
                self._uncapturable_scores = (model, loss_func, *metrics)
                return None
        return self.captured_scores(loader, count)

    def _should_capture(self, epoch: Epoch) -> bool:
        fit = epoch.run.fit
        if not self._always and self.captured is None:
            steps_left = (fit.epochs - fit.epoch) * len(epoch)
            if fit.device.type != "cpu" or steps_left < MIN_STEPS_TO_CAPTURE:
                return False
        if self._refused_in is fit:
            return False
        if epoch.run.hooks["on_backward_begin"]:
            self._refuse(epoch, "a callback wants the loss before the backward pass")
            return False
        return True

    def _is_captured(self, epoch: Epoch) -> bool:
        captured, loader = self.captured, epoch.run.train_dl
        if captured is None or not captured.matches(epoch.run.fit.model, epoch.run.objective.loss_func):
            return False
        return not isinstance(loader, InMemoryLoader) or captured.accepts_loader(loader)

    def _captured_gradients(self, epoch: Epoch, eager: Gradients) -> Gradients:
        """Capture on the first batch; batches of other shapes, and all if capturing fails, are left to `eager`."""
        fit, objective = epoch.run.fit, epoch.run.objective
        captured = self.captured if self._is_captured(epoch) else None

        def gradients(xb: Any, yb: Any) -> Tensor:
            nonlocal captured
            if captured is None and self._refused_in is not fit:
                try:
                    captured = self.captured = CapturedStep(fit.model, objective, xb, yb)
                except CannotCaptureError as error:
                    self._refuse(epoch, str(error))
            if captured is not None and captured.accepts_batch(xb, yb):
                return captured(xb, yb)
            return eager(xb, yb)

        return gradients

    def _refuse(self, epoch: Epoch, reason: str) -> None:
        self._refused_in = epoch.run.fit
        if reason != self.fallback_reason:
            epoch.run.display.message(f"engine: eager, because {reason}")
        self.fallback_reason = reason

    def _report_graph_fallback(self, reason: str | None, message: Callable[[str], None]) -> None:
        if reason and reason != self._graph_fallback:
            message(f"engine: no CUDA graphs, because {reason}")
            self._graph_fallback = reason


def _program_type(device: torch.device) -> type[OptimizerProgram]:
    return GraphProgram if device.type == "cuda" else OptimizerProgram


def _can_run_together(epoch: Epoch) -> bool:
    """Whether the data is in memory, all batches have one size, and no callback looks at a batch."""
    loader = epoch.run.train_dl
    if not isinstance(loader, InMemoryLoader) or len(loader.tensors) < 2:
        return False
    return loader.shuffle and loader.drop_last and not epoch.has_batch_hooks


def _run_together(epoch: Epoch, done: int, captured: CapturedStep, program: OptimizerProgram) -> Iterator[int]:
    """Train the batches after the first `done`, many in one call; yield the number done after each call."""
    run, loader, opt = epoch.run, epoch.run.train_dl, epoch.run.fit.opt
    assert isinstance(loader, InMemoryLoader)  # as `_can_run_together` made sure
    order, bs, target_length = loader.order(epoch.number), loader.batch_size, 1
    while done < len(epoch):
        max_length = min(target_length, len(epoch) - done)
        if run.checkpointer is not None:
            max_length = min(max_length, run.checkpointer.steps_until_due(run.fit))
        count = program.run_length(max_length)
        rates, rows = epoch.rates[done : done + count], order[done * bs : (done + count) * bs]
        numbers = program.numbers(rates, opt.momentum or 0.0)
        started = time.perf_counter()
        try:
            epoch.losses[done : done + count] = captured.run(loader, rows, program, numbers)
        except FAILURES as error:
            raise explain(error, run.fit.model, run.objective.loss_func, *_rows(loader, rows), "train") from error
        opt.set_rates(*rates[-1])
        done += count
        in_time = int(_MAX_RUN_SECONDS * count / (time.perf_counter() - started))
        target_length = max(1, min(2 * target_length, in_time))
        yield done


def _rows(loader: InMemoryLoader, rows: Tensor) -> tuple[Any, Tensor]:
    """The inputs and targets of some rows."""
    *x, y = (tensor.index_select(0, rows) for tensor in loader.tensors)
    return (x if len(x) > 1 else x[0]), y
