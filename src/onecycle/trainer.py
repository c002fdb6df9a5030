"""Trainer: the fits of a learner, kept as they go where that is wanted, and the finder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor

from onecycle.core.checks import whole
from onecycle.core.errors import SettingError
from onecycle.core.record import Record
from onecycle.core.versions import versions
from onecycle.data.fingerprint import fingerprint
from onecycle.keep.checkpoint import weights_of
from onecycle.keep.fit_state import put_back
from onecycle.keep.resuming import Kept
from onecycle.keep.run_folder import RunFolder
from onecycle.keep.saver import Checkpoints, FitSaver, claimed
from onecycle.optim.groups import LayerGroup, Rate, per_group
from onecycle.optim.optimizers import GroupedOptimizer, OptFunc
from onecycle.optim.schedules import Constant, Range, Schedule, momentum_pair, one_cycle_schedule
from onecycle.predictor import Predictor
from onecycle.show.progress import make_display
from onecycle.train import loop
from onecycle.train.callbacks import Callback, Fit, overridden
from onecycle.train.check import check_before_fit, check_callbacks, check_opt_func
from onecycle.train.describe import describe, identity
from onecycle.train.engine import Engine
from onecycle.train.lr_find import LRFindResult, RangeTest, range_epochs
from onecycle.train.metrics import metric_name
from onecycle.train.position import Position
from onecycle.train.recorder import Recorder
from onecycle.train.signals import FINISHED, INTERRUPTED, RESUMABLE
from onecycle.train.snapshot import copies, restored

if TYPE_CHECKING:
    from onecycle.learner import Learner

DEFAULT_LR = slice(3e-3)
TURNING = RLock()  # held while a fit that runs is given another schedule, by any thread or a signal's handler
Decay: TypeAlias = float | Sequence[float] | None
Keep: TypeAlias = str | Path | Checkpoints | None
"""The folder of a run, or how a fit is kept there; None keeps nothing."""


@dataclass
class Job:
    """What a fit is asked to do, and where it starts."""

    epochs: int
    schedule: Schedule
    wd: Decay
    callbacks: Sequence[Callback] | None
    recorder: Recorder
    checkpoints: Checkpoints | None = None
    start: Position | None = None
    first_epoch: int | None = None  # the learner's count
    kept: Kept | None = None  # where it is resumed
    made: list[Callback] | None = None  # all callbacks, where they go on from the fit before


class Trainer(Predictor):
    """What a Learner does with data: fit, and find a rate. The Learner sets what is declared here."""

    opt_func: OptFunc
    opt: GroupedOptimizer | None
    wd: float | Sequence[float]
    true_wd: bool
    bn_wd: bool
    callbacks: list[Callback]
    callback_fns: "list[Callable[[Learner], Callback]]"
    layer_groups: list[LayerGroup]
    recorder: Recorder
    silent: bool | None
    precision: str
    epochs_trained: int
    _engine: Engine
    _last: tuple[Job, Fit] | None = None  # the fit that runs, or the last one
    _running = False

    def fit(
        self,
        epochs: int,
        lr: Rate = DEFAULT_LR,
        wd: Decay = None,
        callbacks: Sequence[Callback] | None = None,
        checkpoint: Keep = None,
        every: int | str | None = None,
    ) -> None:
        """Train for `epochs` at a constant learning rate.

        `slice(a, b)` spreads the rate over the layer groups; `wd` overrides the learner's for this fit. `checkpoint` is
        the folder of a run in which the fit is kept, as often as `every` says: a number of batches, or text such as
        "1 epoch", the default, and "30 s" (a `Checkpoints` says more). Raises SettingError for numbers that cannot be
        used, DataError and ModelError for what does not fit together, OutputError for a checkpoint that cannot be
        written, and NonFiniteLossError where the loss becomes NaN. Ctrl-C ends the fit; `recorder.stopped` says so.
        """
        lrs = per_group(lr, len(self.layer_groups))
        recorder = self._new_recorder(epochs, wd, {"schedule": "constant", "lr": lrs[-1]})
        self._fit(Job(epochs, Constant(lrs), wd, callbacks, recorder, _checkpoints(checkpoint, every)))

    def fit_one_cycle(
        self,
        cyc_len: int,
        max_lr: Rate = DEFAULT_LR,
        moms: float | tuple[float, float] = (0.95, 0.85),
        div_factor: float = 25.0,
        pct_start: float = 0.3,
        final_div: float | None = None,
        wd: Decay = None,
        callbacks: Sequence[Callback] | None = None,
        checkpoint: Keep = None,
        every: int | str | None = None,
    ) -> None:
        """Train for one cycle of `cyc_len` epochs (Leslie Smith, https://arxiv.org/abs/1803.09820).

        The learning rate rises from `max_lr / div_factor` to `max_lr` in the first `pct_start` of the steps and falls
        to `max_lr / final_div` (`div_factor * 1e4` where it is None); the momentum mirrors it between `moms`. The rest
        is as in `fit`.
        """
        peaks, moms = per_group(max_lr, len(self.layer_groups), "max_lr"), momentum_pair(moms)
        steps = len(self.data.train_dl) * whole(cyc_len, "cyc_len", least=0)
        cycle = one_cycle_schedule(steps, peaks, moms, div_factor, pct_start, final_div)
        about = {"schedule": "one cycle", "max_lr": peaks[-1], "moms": list(moms), "div_factor": cycle.div_factor}
        about |= {"pct_start": cycle.pct_start, "final_div": cycle.final_div}
        recorder = self._new_recorder(cyc_len, wd, about)
        self._fit(Job(cyc_len, cycle, wd, callbacks, recorder, _checkpoints(checkpoint, every)))

    def lr_find(
        self,
        start_lr: Rate = 1e-7,
        end_lr: Rate = 10,
        num_it: int = 100,
        stop_div: bool = True,
        wd: Decay = None,
    ) -> LRFindResult:
        """Try learning rates from `start_lr` to `end_lr` in `num_it` steps, and put everything back as it was.

        With `stop_div` it ends early when the smoothed loss is over 4 times its best. `recorder.plot()` draws the
        result until the next fit.
        """
        groups = len(self.layer_groups)
        starts, ends = per_group(start_lr, groups, "start_lr"), per_group(end_lr, groups, "end_lr")
        opt = self.opt or self._make_opt()
        test = RangeTest(num_it, stop_div)
        recorder = Recorder(stop_at_nan=False)
        display = make_display(self.silent, table=False)
        with restored(opt, self.model, self.loss_func):
            check_before_fit(self.model, self.loss_func, self.data.train_dl, None)
            epochs = range_epochs(num_it, len(self.data.train_dl))
            fit = self._start(epochs, Range(starts, ends, num_it), opt, wd, recorder)
            hooks = overridden([test, *copies(self._all_callbacks(None))]) | {"on_epoch_end": ()}
            loop.fit(
                fit, self.data.train_dl, None, self.loss_func, [], hooks, recorder, display, Engine("eager"),
                self._forward, self.data.seed, self.epochs_trained, num_it,
            )  # fmt: skip
        if fit.stop_reason == INTERRUPTED:
            raise KeyboardInterrupt
        self.recorder = recorder
        display.say("LR Finder is complete, type {learner_name}.recorder.plot() to see the graph.")
        return LRFindResult(recorder.lrs, recorder.losses)

    # --- what they share -----------------------------------------------------------------------------------------

    def _fit(self, job: Job) -> None:
        epochs = whole(job.epochs, "epochs", least=0)
        data = self.data
        try:
            check_before_fit(self.model, self.loss_func, data.train_dl, data.valid_dl, self.metrics, self._restore())
            callbacks = job.made if job.made is not None else self._all_callbacks(job.callbacks)
            hooks = overridden(callbacks)
            hooks["on_epoch_begin"] = (_let_turn, *hooks["on_epoch_begin"])
            self.opt = self.opt or self._make_opt()
            fit = self._start(epochs, job.schedule, self.opt, job.wd, job.recorder)
            names = fit.record.metric_names
            fit.columns = ("train_loss", *(("valid_loss", *names) if data.valid_dl is not None else ()))
            first_epoch = self.epochs_trained if job.first_epoch is None else job.first_epoch
            if job.kept is not None:
                self._put_back(job.kept, fit, callbacks)
            saver = self._saver(job, fit, callbacks, first_epoch)
        except BaseException:
            if job.kept is not None:
                RunFolder(job.kept.checkpoints.folder).release(job.kept.lock)
            raise
        self.recorder, self._last, self._running, job.made = job.recorder, (job, fit), True, callbacks
        try:
            loop.fit(
                fit, data.train_dl, data.valid_dl, self.loss_func, self.metrics, hooks, job.recorder,
                make_display(self.silent), self._engine, self._forward, data.seed, first_epoch,
                restore=self._restore(), start=job.start, saver=saver,
            )  # fmt: skip
        finally:
            self._running, job.kept = False, None  # which holds all tensors of the checkpoint
            self.epochs_trained = first_epoch + (fit.epoch + 1 if fit.iteration else 0)

    def _put_back(self, kept: Kept, fit: Fit, callbacks: list[Callback]) -> None:
        """Everything as the checkpoint has it."""
        put_back(kept.state, fit, callbacks, kept.checkpoints.folder)
        at = kept.position
        fit.iteration, fit.epoch = at.iteration, at.epoch if at.num_batch else max(at.epoch - 1, 0)
        if kept.ended not in (None, FINISHED, *RESUMABLE):
            fit.stop_reason = kept.ended  # a callback ended it

    def _saver(self, job: Job, fit: Fit, callbacks: list[Callback], first_epoch: int) -> FitSaver | None:
        """What keeps the fit, where that is wanted."""
        wanted, kept = job.checkpoints, job.kept
        if wanted is None:
            return None
        weights_of(self.model)  # raises for one that cannot be kept, before it is trained
        extra = {
            "wd": self.wd if job.wd is None else job.wd,
            "first_epoch": first_epoch,
            "checkpoints": {"every": wanted.every, "keep": wanted.keep, "best": wanted.best},
        }
        if wanted.monitor is not None:
            wanted.monitor.check(fit)
        lock = kept.lock if kept is not None else claimed(wanted, job.start)
        return FitSaver(wanted, fit, callbacks, self._identity, lock, extra, is_new=job.start is None)

    def _new_recorder(self, epochs: int, wd: Decay, about: dict[str, Any]) -> Recorder:
        data = self.data
        settings = {
            **about,
            "epochs": epochs,
            "bs": data.train_dl.batch_size,
            "seed": data.seed,
            **describe(self.model, self.loss_func, self.opt_func, self.true_wd),
            "wd": self.wd if wd is None else wd,
            "true_wd": self.true_wd,
            "bn_wd": self.bn_wd,
            "precision": self.precision,
        }
        names = [metric_name(metric) for metric in self.metrics]
        return Recorder(Record(metric_names=names, settings=settings, versions=versions(self.device)))

    def _identity(self) -> dict[str, Any]:
        """What a fit is resumed with, or not at all."""
        data = self.data
        return {
            "training data": fingerprint(data.train_dl),
            "validation data": fingerprint(data.valid_dl),
            **identity(self.model, self.loss_func, self.opt or self._make_opt(), self.device),
            "settings": {
                **{"seed": data.seed, "true_wd": self.true_wd, "bn_wd": self.bn_wd, "precision": self.precision},
                "metrics": [metric_name(metric) for metric in self.metrics],
            },
        }

    def _restore(self) -> Callable[[Tensor], Tensor] | None:
        """What gives predictions and targets back in the target's units, for the metrics."""
        target = self.data.target
        return target.restore if target is not None and target.task == "regression" else None

    def _start(self, epochs: int, schedule: Schedule, opt: GroupedOptimizer, wd: Decay, recorder: Recorder) -> Fit:
        opt.set_wd(self.wd if wd is None else wd)
        return Fit(self.model, opt, epochs, recorder.record, self.device, schedule)

    def _make_opt(self) -> GroupedOptimizer:
        check_opt_func(self.opt_func, self.layer_groups)
        return GroupedOptimizer(self.opt_func, self.layer_groups, self.true_wd, self.bn_wd)

    def _all_callbacks(self, extra: Sequence[Callback] | None) -> list[Callback]:
        more = as_list(extra)
        check_callbacks([*self.callbacks, *more], self.callback_fns)
        made = [make(self) for make in self.callback_fns]  # pyright: ignore[reportArgumentType] -- a Trainer is always a Learner
        return [*self.callbacks, *made, *more]


def _let_turn(_: Fit) -> None:
    """Before an epoch's rates are computed, wait for the schedule that may be put in place for it."""
    with TURNING:
        pass


def as_list(value: Any) -> list[Any]:
    """`value` as a list: itself, what is in it, or none."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _checkpoints(given: Any, every: int | str | None) -> Checkpoints | None:
    """How a fit is kept. Raises SettingError where the two do not fit together."""
    if isinstance(given, str | Path) and given != "":
        return Checkpoints(given) if every is None else Checkpoints(given, every)
    if given is not None and not isinstance(given, Checkpoints):
        raise SettingError(f"checkpoint: expected the folder of a run, or Checkpoints(folder, …); found {given!r}")
    if every is not None:
        if given is not None:
            raise SettingError(f"every={every!r} belongs into Checkpoints: Checkpoints(folder, every={every!r})")
        raise SettingError(
            f"every={every!r} says how often a fit is kept, but not where: give checkpoint= too, the folder of a run"
        )
    return given
