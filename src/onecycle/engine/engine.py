"""The choice between eager steps and a captured one, and runs of captured steps."""

import time
from collections.abc import Callable, Iterator
from typing import Any, get_args

import torch
from torch import Tensor, nn

from onecycle.core.choices import EngineName
from onecycle.data.loaders import InMemoryLoader, Loader
from onecycle.engine.capture import CapturedScores, CapturedStep, are_same
from onecycle.engine.graph_program import GraphProgram
from onecycle.engine.optimizer_program import OptimizerProgram, program_of
from onecycle.engine.spot_check import SpotCheck
from onecycle.engine.trace import CannotCaptureError
from onecycle.errors import SettingError, did_you_mean
from onecycle.optim.fused_adam import FLUSH_EVERY
from onecycle.train.checks import FAILURES, explain
from onecycle.train.fit import Fit
from onecycle.train.loop import EagerEngine, Engine, Epoch, eager_gradients, eager_steps
from onecycle.train.scores import is_batchwise
from onecycle.train.step import Gradients, Objective

MIN_STEPS_TO_CAPTURE = 600  # a captured step saves about 0.15 ms of small models, capturing takes about 0.1 s
_OFTEN = 600  # steps: what changes twice within so many is not captured again in this fit
_DISAGREE = "a captured step gave other numbers than an eager one"
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
        self._uncapturable: tuple[Any, ...] = ()  # model, loss and metrics that could not be captured
        self._graph_fallback: str | None = None
        self._check: SpotCheck | None = None
        self._run_length = 1  # steps; doubled as long as they take less than _MAX_RUN_SECONDS
        self._changes: dict[str, list[int]] = {}  # steps at which something changed, by its name
        self._changes_in: Fit | None = None

    def steps(self, epoch: Epoch) -> Iterator[int]:
        """Train an epoch; yield the number of batches done after each step or run of steps."""
        fit = epoch.run.fit
        if not self._should_capture(epoch):
            yield from eager_steps(epoch, eager_gradients(epoch))
            return
        if self.captured is not None and (self._check is None or self._check.fit is not fit):
            self._check = SpotCheck(self.captured, fit)
        steps, done = eager_steps(epoch, self._captured_gradients(epoch)), fit.num_batch
        if _can_run_together(epoch):
            if done < len(epoch) and not (self._is_captured(epoch) and fit.opt.has_state()):
                yield (done := next(steps))  # it captures, and creates the optimizer's state
            first = done
            for done in self._run_together(epoch, first):
                yield done
            if done != first:  # the rest, if the runs ended early
                steps = eager_steps(epoch, self._captured_gradients(epoch))
        if done < len(epoch):
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
        functions = (model, loss_func, *metrics)
        if are_same(self._uncapturable, functions):
            return None
        if self.captured_scores is None or not self.captured_scores.matches(model, loss_func, metrics, loader):
            xb, yb = next(loader.epoch(0))
            try:
                self.captured_scores = CapturedScores(model, objective, xb, yb)
            except Exception:  # nothing is lost: validation goes on eagerly, and raises what it must
                self.captured_scores, self._uncapturable = None, functions
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
        """Whether the step is captured as model, loss and data are now."""
        captured, loader = self.captured, epoch.run.train_dl
        if captured is None or (isinstance(loader, InMemoryLoader) and not captured.accepts_loader(loader)):
            return False
        return self._is_unchanged(epoch, captured)

    def _is_unchanged(self, epoch: Epoch, captured: CapturedStep) -> bool:
        """Whether model and loss are as they were when the step was captured. What changed is counted."""
        label = captured.changed(epoch.run.fit.model, epoch.run.objective.loss_func)
        if label is None:
            return True
        self.captured = None
        if self._changes_in is not epoch.run.fit:
            self._changes, self._changes_in = {}, epoch.run.fit
        steps = self._changes.setdefault(label, [])
        steps.append(epoch.run.fit.iteration)
        if len(steps) > 1 and steps[-1] - steps[-2] < _OFTEN:
            self._refuse(epoch, f"{label} changes between steps, more than once in {_OFTEN} steps")
        return False

    def _captured_gradients(self, epoch: Epoch) -> Gradients:
        """Replay a step if it is captured, else capture it; batches of other shapes are left to eager steps."""
        fit, objective, eager = epoch.run.fit, epoch.run.objective, eager_gradients(epoch)

        def gradients(xb: Any, yb: Any) -> Tensor:
            if not self._is_captured(epoch) and self._refused_in is not fit:
                try:
                    self.captured, self._run_length = CapturedStep(fit.model, objective, xb, yb), 1
                    self._check = SpotCheck(self.captured, fit)
                except CannotCaptureError as error:
                    self._refuse(epoch, str(error))
                except Exception as error:  # whatever torch raises: the eager step raises it again if it must
                    self._refuse(epoch, f"capturing it raised {type(error).__name__}")
            captured, check = self.captured, self._check
            if self._refused_in is fit or captured is None or not captured.accepts_batch(xb, yb):
                return eager(xb, yb)
            if check is not None and check.is_due() and not check.passes(fit, xb, yb):
                self._go_back(epoch, _DISAGREE)
                return eager(xb, yb)
            return captured(xb, yb)

        return gradients

    def _run_together(self, epoch: Epoch, done: int) -> Iterator[int]:
        """Train the batches after the first `done`, many in one call; yield the number done after each call.

        Ends early if it cannot go on so.
        """
        run, fit, loader = epoch.run, epoch.run.fit, epoch.run.train_dl
        assert isinstance(loader, InMemoryLoader)  # as `_can_run_together` made sure
        program = self._program(epoch, done)
        if program is None:
            return
        order, bs, captured, check = loader.order(epoch.number), loader.batch_size, self.captured, self._check
        assert captured is not None  # or there would be no program
        assert check is not None
        if is_first := not captured.has_run:
            check.save(fit)
        while done < len(epoch) and self._is_unchanged(epoch, captured):
            batch = loader.gather(order[done * bs : (done + 1) * bs]) if check.is_due() and not is_first else None
            if batch is not None and not check.passes(fit, *batch):
                yield self._go_back(epoch, _DISAGREE)
                return
            max_length = min(self._run_length, len(epoch) - done)
            if run.checkpointer is not None:
                max_length = min(max_length, run.checkpointer.steps_until_due(fit))
            count = program.run_length(max_length)
            rates, rows = epoch.rates[done : done + count], order[done * bs : (done + count) * bs]
            numbers = program.numbers(rates, fit.opt.momentum or 0.0)
            started = time.perf_counter()
            try:
                epoch.losses[done : done + count] = captured.run(loader, rows, program, numbers)
            except Exception as error:
                if is_first:  # of the program, not of the data: if it is of the data, an eager step explains it
                    yield self._go_back(epoch, f"its captured steps raised {type(error).__name__}")
                    return
                if isinstance(error, FAILURES):
                    objective, batch = run.objective, loader.gather(rows)
                    raise explain(error, fit.model, objective.loss_func, *batch, "train", objective.forward) from error
                raise
            fit.opt.set_rates(*rates[-1])
            in_time = int(_MAX_RUN_SECONDS * count / (time.perf_counter() - started))
            self._run_length, is_first = max(1, min(2 * self._run_length, in_time, FLUSH_EVERY)), False
            self._report_graph_fallback(captured.graph_fallback_reason(), run.display.message)
            done += count
            yield done

    def _program(self, epoch: Epoch, done: int) -> OptimizerProgram | None:
        """The optimizer's step as a program, if the step is captured and there is one."""
        fit = epoch.run.fit
        if done == len(epoch) or not self._is_captured(epoch) or self.captured is None:
            return None
        fit.opt.set_rates(*epoch.rates[done])
        return program_of(_program_type(fit.device), fit.opt, self.captured.trained, self.captured.has_gradient)

    def _go_back(self, epoch: Epoch, reason: str) -> int:
        """Restore the last point at which both engines agreed, and go on eagerly; return the batches done then."""
        fit, check = epoch.run.fit, self._check
        assert check is not None  # there was a captured step
        check.restore(fit)
        self.captured = self._check = None
        step = check.position.iteration
        self._refuse(epoch, f"{reason}; weights and optimizer are those of step {step}, where they agreed")
        if check.position.epoch != fit.epoch:
            return fit.num_batch  # the row of that epoch is written: the steps since are lost
        epoch.run.recorder.rewind(check.position.num_batch)
        return check.position.num_batch

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
