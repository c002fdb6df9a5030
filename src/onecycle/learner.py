"""Learner: train a model on a DataBunch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import nn

from onecycle.checkpoint.resume import ResumePoint
from onecycle.checkpoint.state import Surroundings, restore_state, resumed_generators
from onecycle.checkpoint.weights import find_nan, load_checkpoint, save_checkpoint, weights_of
from onecycle.checkpoint.writer import CheckpointConfig, CheckpointWriter, acquire_run_lock
from onecycle.core.archives import as_place, place_name
from onecycle.core.checks import as_list, check_int
from onecycle.core.choices import EngineName, Precision, SetName, ThreadCount
from onecycle.core.device import pick_device, preserve_python_rng_states, versions
from onecycle.core.files import Lock
from onecycle.core.lr_curve import DEFAULT_RATE
from onecycle.core.meaning import check_meaning, check_rows, describe_meaning, meaning_digests, preparation_difference
from onecycle.core.models import TabularModel
from onecycle.core.record import Record
from onecycle.data.bunch import DataBunch
from onecycle.data.disk_loader import DiskLoader
from onecycle.data.loaders import Loader
from onecycle.engine.engine import make_engine
from onecycle.errors import DataError, FileError, SettingError, pluralize, warn_user
from onecycle.export.bundle import BundleInfo
from onecycle.optim.groups import LayerGroup, LayerGroups, Rate, freeze_groups, leaves, per_group, split_layers
from onecycle.optim.optimizer import AdamW, GroupedOptimizer, OptFunc, optimizer_class
from onecycle.optim.schedules import (
    Constant,
    ExponentialRamp,
    Schedule,
    annealed,
    extended,
    momentum_pair,
    one_cycle_schedule,
)
from onecycle.predictor import Predictor, metrics_by_name, read_checked_bundle
from onecycle.show.progress import make_display
from onecycle.train.callbacks.base import Callback, check_callbacks, collect_hooks
from onecycle.train.callbacks.monitor import known_modes
from onecycle.train.checks import (
    check_arguments,
    check_before_fit,
    check_opt_func,
    untrained_parameters,
)
from onecycle.train.evaluate import evaluate
from onecycle.train.fit import Fit, Position
from onecycle.train.generators import GeneratorUse, evaluating
from onecycle.train.loop import Run, run_fit
from onecycle.train.losses import NamedLoss, default_loss, loss_by_name, loss_name
from onecycle.train.lr_find import LRFindResult, RangeTest, range_epochs
from onecycle.train.metrics import Metric, metric_names
from onecycle.train.recorder import Recorder
from onecycle.train.signals import FINISHED, INTERRUPTED, RESUMABLE
from onecycle.train.signature import VERSION, Signature, machine
from onecycle.train.snapshot import restoring
from onecycle.train.step import LossFunc, Objective, forward_in
from onecycle.train.threads import Threads, check_threads

DEFAULT_LR = slice(DEFAULT_RATE)
WeightDecay: TypeAlias = float | Sequence[float]
_TRAINED_ON = WeakKeyDictionary[nn.Module, Any]()  # how the rows of a table were prepared, by the model they trained
CallbackFactory: TypeAlias = "Callable[[Learner], Callback]"


@dataclass
class FitPlan:
    """A requested fit: its settings, and its starting point.

    Attributes:
        epochs: How many epochs.
        schedule: Learning rates and momentum.
        wd: Weight decay, or None for the learner's.
        callbacks: Callbacks of this fit, besides the learner's.
        recorder: Receives losses and rows.
        checkpoints: How the fit is saved, or None.
        start: Where to continue, or None for a new fit.
        first_epoch: Epochs that the learner had trained when the fit began; None if it begins now.
        resume_point: The checkpoint to restore, or None.
        resolved_callbacks: All callbacks, if they continue from an earlier fit.
        signature: What a resumed fit is compared with, once it is known.
    """

    epochs: int
    schedule: Schedule
    wd: WeightDecay | None
    callbacks: Callback | Sequence[Callback] | None
    recorder: Recorder
    checkpoints: CheckpointConfig | None = None
    start: Position | None = None
    first_epoch: int | None = None
    resume_point: ResumePoint | None = None
    resolved_callbacks: list[Callback] | None = None
    signature: Signature | None = None


class Learner(Predictor):
    """A model, its data, and how to train the one on the other.

    Args:
        data: Training, validation and test data. Without data (None, or the info of a bundle) it only predicts.
        model: Any torch module; by default a TabularModel for data from a table.
        loss_func: Function (outputs, targets) -> scalar; by default cross-entropy for classes, binary cross-entropy for
            multilabel targets and mean squared error for floats.
        opt_func: Makes a torch optimizer from parameter groups. Optimizers that need a closure (LBFGS) do not work.
        metrics: Functions (outputs, targets) -> number, or torchmetrics metrics; computed in validation.
        wd: Weight decay; a sequence has one value for each layer group.
        true_wd: Decouple the weight decay from the gradient (AdamW) instead of adding it to the loss (L2).
        bn_wd: Decay the parameters of normalisation layers and biases too.
        callbacks: Callbacks of every fit.
        callback_fns: Functions (learner) -> callback, called at each fit.
        path: Folder that files are written to; by default the data's.
        model_dir: Sub-folder of `path` that `save` writes to.
        silent: Show no progress. None shows it.
        engine: "eager" runs every step in Python, "fast" captures the step, "auto" captures it on a CPU if there are
            enough steps. All give the same numbers (docs/engine.md).
        precision: "fp32", or "bf16" for bfloat16 autocast.
        threads: CPU threads of a fit. "auto" takes as many as the model's operators can keep busy, at most torch's own
            number and the cores that the process may use (docs/engine.md).

    Attributes:
        model: The model.
        opt: The optimizer, or None before the first fit.
        recorder: Record of the last fit or LR finder run.
        layer_groups: The layer groups, see `split`.
        epochs_trained: Epochs trained so far, over all fits; decides the batch order of the next epoch.

    Raises:
        SettingError: If an argument is not of the kind described.
        DataError: If `data` is not a DataBunch.

    Example:
        >>> learn = Learner(mnist(), MLP(784, 50, 10), metrics=accuracy)
        >>> learn.fit_one_cycle(1, 1e-2)
    """

    def __init__(
        self,
        data: DataBunch | BundleInfo | None,
        model: nn.Module | None = None,
        loss_func: LossFunc | None = None,
        opt_func: OptFunc = AdamW,
        metrics: Metric | Sequence[Metric] | None = None,
        wd: WeightDecay = 1e-2,
        true_wd: bool = True,
        bn_wd: bool = True,
        callbacks: Callback | Sequence[Callback] | None = None,
        callback_fns: CallbackFactory | Sequence[CallbackFactory] | None = None,
        path: str | Path | None = None,
        model_dir: str | Path = "models",
        silent: bool | None = None,
        engine: EngineName = "auto",
        precision: Precision = "fp32",
        threads: ThreadCount = "auto",
    ) -> None:
        if not isinstance(data, DataBunch | BundleInfo | None):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise DataError(f"Learner takes a DataBunch, not a {type(data).__name__}; see DataBunch.create")
        bunch = data if isinstance(data, DataBunch) else None
        if model is None and bunch is not None and bunch.features is not None:
            model = TabularModel(bunch.features.numbers, bunch.features.sizes, bunch.c)
        check_arguments(model, loss_func, as_list(metrics))
        assert model is not None  # check_arguments raises otherwise
        super().__init__(
            model,
            loss_func or default_loss(bunch.task if bunch is not None else "classes"),
            data,
            bunch.device if bunch is not None else pick_device(),
            as_list(metrics),
            path if path is not None else bunch.path if bunch is not None else ".",
            forward_in(precision),
        )
        if bunch is not None and (difference := preparation_difference(_TRAINED_ON.get(model), bunch)):
            warn_user(
                f"the model was trained on rows that were prepared in another way: {difference}; its weights mean "
                "something else here: expected DataBunch.from_table(..., preprocessing=) of those, or a new model",
            )
        self.opt_func, self.wd, self.true_wd, self.bn_wd = opt_func, wd, true_wd, bn_wd
        self.callbacks: list[Callback] = as_list(callbacks)
        self.callback_fns: list[CallbackFactory] = as_list(callback_fns)
        self.model_dir, self.silent, self.precision = Path(model_dir), silent, precision
        self.engine, self.threads = make_engine(engine), check_threads(threads)
        self.layer_groups: list[LayerGroup] = LayerGroups([leaves(self.model)])
        self.opt: GroupedOptimizer | None = None
        self.recorder = Recorder()
        self.epochs_trained = 0
        self._last_fit: tuple[FitPlan, Fit] | None = None
        self._running: Fit | None = None
        self._threads_used: int | None = None
        self._changed: set[tuple[str, str]] = set()  # what fits and validation have changed besides weights

    def __repr__(self) -> str:
        return f"Learner({type(self.model).__name__}, {self._source!r})"

    # --- training ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        epochs: int,
        lr: Rate = DEFAULT_LR,
        wd: WeightDecay | None = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        checkpoint: str | Path | CheckpointConfig | None = None,
        every: int | str | None = None,
    ) -> None:
        """Train at a constant learning rate. Ctrl-C ends the fit after the current step; `recorder.stopped` says so.

        Args:
            epochs: Number of epochs.
            lr: Learning rate. `slice(a, b)` spreads it over the layer groups from a to b, `slice(b)` gives b to the
                last group and b/10 to the others, a sequence has one value for each group.
            wd: Weight decay of this fit; by default the learner's.
            callbacks: Further callbacks of this fit.
            checkpoint: Folder of the run in which the fit is saved while it runs, or a `CheckpointConfig`.
            every: How often it is saved: a number of batches, or text such as "1 epoch" (the default) or "30 s".

        Raises:
            SettingError: For a number that cannot be used.
            DataError: If there are no batches, or the targets do not fit the outputs.
            ModelError: If the model cannot take the rows.
            OutputError: If a checkpoint cannot be written.
            NonFiniteLossError: If the loss becomes NaN or infinite.

        Example:
            >>> learn.fit(2, 1e-2)
        """
        lrs = per_group(lr, len(self.layer_groups))
        recorder = self._new_recorder(epochs, wd, {"schedule": "constant", "lr": lrs[-1]})
        checkpoints = CheckpointConfig.from_arguments(checkpoint, every)
        self._fit(FitPlan(epochs, Constant(lrs), wd, callbacks, recorder, checkpoints))

    def fit_one_cycle(
        self,
        cyc_len: int,
        max_lr: Rate = DEFAULT_LR,
        moms: float | tuple[float, float] = (0.95, 0.85),
        div_factor: float = 25.0,
        pct_start: float = 0.3,
        final_div: float | None = None,
        wd: WeightDecay | None = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        checkpoint: str | Path | CheckpointConfig | None = None,
        every: int | str | None = None,
    ) -> None:
        """Train for one cycle (Leslie Smith, https://arxiv.org/abs/1803.09820).

        The learning rate rises from `max_lr / div_factor` to `max_lr`, then falls to `max_lr / final_div`, both along
        half a cosine wave; the momentum mirrors it.

        Args:
            cyc_len: Number of epochs.
            max_lr: Highest learning rate; spread over layer groups as `lr` in `fit`.
            moms: Momentum at the ends and at the peak of the cycle; one number for both.
            div_factor: `max_lr` divided by the first learning rate.
            pct_start: Fraction of the steps in which the learning rate rises.
            final_div: `max_lr` divided by the last learning rate; by default `div_factor * 1e4`.
            wd: Weight decay of this fit; by default the learner's.
            callbacks: Further callbacks of this fit.
            checkpoint: As in `fit`.
            every: As in `fit`.

        Raises:
            OneCycleError: As `fit` does.

        Example:
            >>> learn.fit_one_cycle(1, learn.lr_find().suggestion)
        """
        peaks, moms = per_group(max_lr, len(self.layer_groups), "max_lr"), momentum_pair(moms)
        steps = len(self.data.train_dl) * check_int(cyc_len, "cyc_len", least=0)
        cycle = one_cycle_schedule(steps, peaks, moms, div_factor, pct_start, final_div)
        schedule_settings = {
            "schedule": "one cycle",
            "max_lr": peaks[-1],
            "moms": list(moms),
            "div_factor": cycle.div_factor,
        }
        schedule_settings |= {"pct_start": cycle.pct_start, "final_div": cycle.final_div}
        recorder = self._new_recorder(cyc_len, wd, schedule_settings)
        self._fit(FitPlan(cyc_len, cycle, wd, callbacks, recorder, CheckpointConfig.from_arguments(checkpoint, every)))

    def lr_find(
        self,
        start_lr: Rate = 1e-7,
        end_lr: Rate = 10,
        num_it: int = 100,
        stop_div: bool = True,
        wd: WeightDecay | None = None,
    ) -> LRFindResult:
        """Try learning rates from `start_lr` to `end_lr` (Leslie Smith, https://arxiv.org/abs/1506.01186).

        Everything the steps change is restored: a fit after it equals one without it. `recorder.plot()` draws the
        result until the next fit.

        Args:
            start_lr: First learning rate.
            end_lr: Last learning rate.
            num_it: Number of steps.
            stop_div: Stop early if the smoothed loss exceeds 4 times its minimum.
            wd: Weight decay; by default the learner's.

        Returns:
            The learning rates, the smoothed losses and the suggestion.

        Raises:
            KeyboardInterrupt: On Ctrl-C, after everything is restored.

        Example:
            >>> result = learn.lr_find()
            >>> result.plot()
            >>> learn.fit_one_cycle(1, result.suggestion)
        """
        groups, batches = len(self.layer_groups), len(self.data.train_dl)
        starts, ends = per_group(start_lr, groups, "start_lr"), per_group(end_lr, groups, "end_lr")
        opt = self._current_opt()
        range_test, recorder = RangeTest(num_it, stop_div), Recorder(stop_at_nan=False)
        display = make_display(self.silent, table=False)
        objective = replace(self._objective, metrics=())
        with self._noting_changes(), self._use_of_generators() as generators, ExitStack() as trial:
            check_before_fit(self.model, objective, self.data.train_dl, None)
            trial.enter_context(generators.restoring(self.device))
            trial.enter_context(preserve_python_rng_states())
            snapshot = trial.enter_context(restoring(self.model, self.loss_func, opt))
            callbacks = self._resolve_callbacks(None)
            snapshot.add(*callbacks)
            fit = self._new_fit(range_epochs(num_it, batches), ExponentialRamp(starts, ends, num_it), opt, wd, recorder)
            hooks = collect_hooks([range_test, *callbacks]) | {"on_epoch_end": ()}
            self._run_fit(
                Run(
                    fit=fit,
                    train_dl=self.data.train_dl,
                    valid_dl=None,
                    objective=objective,
                    hooks=hooks,
                    recorder=recorder,
                    display=display,
                    seed=self.data.seed,
                    first_epoch=self.epochs_trained,
                    total_steps=num_it,
                    generators=generators,
                    threads=self._threads(),
                )
            )
        if fit.stop_reason == INTERRUPTED:
            raise KeyboardInterrupt
        self.recorder = recorder
        display.message("LR Finder is complete, type {learner_name}.recorder.plot() to see the graph.")
        return LRFindResult(recorder.lrs, recorder.losses)

    def validate(self, which: SetName | Loader = "valid") -> list[float]:
        """Return the loss and each metric on a data set, batch means weighted by batch size.

        Args:
            which: "valid", "train", "test" or "fix", or a loader.

        Raises:
            DataError: If there is no such set.

        Example:
            >>> loss, accuracy = learn.validate()
        """
        with self._noting_changes(), evaluating(self.model), self._threads_of_last_fit():
            return evaluate(self.model, self._loader(which), self._objective)

    # --- earlier fits ------------------------------------------------------------------------------------------------

    def resume(
        self,
        folder: str | Path,
        callbacks: Callback | Sequence[Callback] | None = None,
        strict: bool = True,
        lock: Lock | None = None,
    ) -> None:
        """Resume a fit from the newest intact checkpoint of a run. A fit that is finished is only loaded.

        With a learner set up like the one of the run, the result equals a fit that was never stopped, bit for bit on
        the same device. It has as many CPU threads as the run.

        Args:
            folder: The folder that the fit had as `checkpoint`.
            callbacks: The callbacks that the fit had.
            strict: Refuse a learner that is set up otherwise than that of the run. False warns, and resumes.
            lock: The lock of the folder, if the caller has it already.

        Raises:
            FileError: If there is no intact checkpoint.
            SettingError: If the run is in use, or data, model or settings differ; the message names them.

        Example:
            >>> learn.resume("runs/first")
        """
        resolved = self._resolve_callbacks(callbacks)
        names, batches = [type(callback).__name__ for callback in resolved], len(self.data.train_dl)
        sign = partial(self._sign, resolved)
        point = ResumePoint.latest(folder, sign, names, batches, len(self.layer_groups), strict, lock)
        recorder = Recorder(point.record)
        recorder.prime_smoothing()
        make_display(self.silent).message(point.progress_message(batches))
        self._fit(
            FitPlan(
                point.epochs,
                point.schedule,
                point.wd,
                callbacks,
                recorder,
                checkpoints=point.checkpoints,
                start=point.position,
                first_epoch=point.first_epoch,
                resume_point=point,
                resolved_callbacks=resolved,
                signature=point.signature,
            )
        )

    def anneal_now(self, epochs: int = 1) -> None:
        """End a cycle early: lower the learning rate to where the cycle would have ended.

        During a fit (from a callback, another thread or a signal handler) this takes effect with the next epoch, unless
        the fit ends as early anyway or anneals already. After a fit that was stopped it is a fit of its own.

        Args:
            epochs: Number of epochs for it.

        Raises:
            SettingError: If there was no fit, it is finished, or it had another number of layer groups.

        Example:
            >>> learn.anneal_now(2)
        """
        epochs = check_int(epochs, "epochs", least=1)
        if self._last_fit is None:
            raise SettingError("anneal_now: there was no fit yet; expected one that runs, or was stopped")
        plan, fit = self._last_fit
        if self._running is fit:
            fit.anneal(epochs)
            return
        if not fit.record.stopped:
            raise SettingError("anneal_now: the last fit is finished; lengthen it with extend")
        self._check_layer_groups(fit, "anneal_now")
        batches = len(self.data.train_dl)
        lrs, mom = fit.schedule(fit.iteration)
        schedule = annealed(fit.schedule, fit.iteration, epochs * batches, fit.epochs * batches)
        schedule = replace(schedule, before=Constant(lrs, mom), start=0)
        recorder = self._new_recorder(epochs, plan.wd, {"schedule": "annealing", "lr": lrs[-1]})
        self._fit(FitPlan(epochs, schedule, plan.wd, plan.callbacks, recorder))

    def extend(self, epochs: int) -> None:
        """Lengthen the last fit, as if its cycle had been longer from here on.

        The learning rate rises to that of the longer cycle within a twentieth of the new steps, and falls with it. The
        record continues, and so do the checkpoints if there are any.

        Args:
            epochs: Number of further epochs.

        Raises:
            SettingError: If the last fit is not finished, or had other metrics or another number of layer groups.

        Example:
            >>> learn.extend(2)
        """
        epochs = check_int(epochs, "epochs", least=1)
        if self._last_fit is None:
            raise SettingError("extend: there was no fit yet; expected one that is finished")
        plan, fit = self._last_fit
        done, batches = len(fit.record.epochs), len(self.data.train_dl)
        if fit.record.stopped or done != fit.epochs:
            raise SettingError("extend: the last fit was stopped; continue it (resume), or end it with anneal_now")
        if fit.record.metric_names != metric_names(self.metrics):
            raise SettingError(f"extend: the fit's metrics were {fit.record.metric_names}; expected the same")
        self._check_layer_groups(fit, "extend")
        plan.epochs, plan.schedule = fit.epochs + epochs, extended(fit.schedule, fit.iteration, epochs * batches)
        plan.start, plan.first_epoch = Position(done, 0, fit.iteration), self.epochs_trained - done
        fit.record.settings |= {"epochs": plan.epochs, "extended from step": fit.iteration}
        self._fit(plan)

    def _check_layer_groups(self, fit: Fit, caller: str) -> None:
        then, now = len(fit.schedule(fit.iteration)[0]), len(self.layer_groups)
        if then != now:
            raise SettingError(
                f"{caller}: the last fit had {pluralize(then, 'layer group')}, the model has {now} now; expected as "
                "many: train with fit or fit_one_cycle instead"
            )

    # --- layer groups ------------------------------------------------------------------------------------------------

    def split(self, at: nn.Module | Iterable[nn.Module] | Callable[[nn.Module], Any]) -> Learner:
        """Cut the model into layer groups. The optimizer is created anew.

        A layer that is added to the model later joins the group of the layers around it, or the last group.

        Args:
            at: The modules that start a new group, or a function (model) -> such modules or lists of modules.

        Returns:
            The learner.

        Raises:
            SettingError: If something in `at` is not a part of the model, or if a fit is under way.

        Example:
            >>> learn.split(model.head).freeze()
        """
        if self._running is not None:
            raise SettingError("split: a fit is under way, whose rates are for its layer groups; split before the fit")
        self._materialise()
        self.layer_groups = split_layers(self.model, [at] if isinstance(at, nn.Module) else at)
        self._follow_model()
        self.opt = None
        return self

    def freeze_to(self, n: int) -> None:
        """Train only the layer groups from index `n` on, and BatchNorm layers everywhere.

        The optimizer is created anew. In a callback, the fit under way goes on with its optimizer, which from then on
        trains these groups and keeps the state of parameters that it has trained.

        Args:
            n: Index of the first group to train; negative numbers count from the end.

        Raises:
            SettingError: If `n` is not an integer.

        Example:
            >>> learn.freeze_to(-2)
        """
        freeze_groups(self._follow_model(), n)
        if self._running is None:
            self.opt = None

    def freeze(self) -> None:
        """Train only the last layer group.

        Raises:
            SettingError: If there is only one.

        Example:
            >>> learn.freeze()
        """
        if len(self.layer_groups) < 2:
            raise SettingError(
                "freeze: the model has one layer group; cut it first, for example learn.split(model.lin2)"
            )
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Train all layer groups.

        Example:
            >>> learn.unfreeze()
        """
        self.freeze_to(0)

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, name: str | Path | IO[bytes], with_opt: bool = True) -> Path:
        """Save the model's weights. An earlier save of that name is replaced.

        Args:
            name: Name of the folder, in `path / model_dir`; or a file-like object such as BytesIO.
            with_opt: Save the optimizer's state too.

        Returns:
            The folder; for a file-like object a name for messages, such as <BytesIO>.

        Raises:
            OutputError: If it cannot be written.

        Example:
            >>> learn.save("mini_train")
        """
        self._materialise()
        place = as_place(name, self.path / self.model_dir)
        if found := find_nan(self.model):
            warn_user(f"{place_name(place)}: the weights that are saved contain NaN ({found})")
        save_checkpoint(place, self.model, self.opt if with_opt else None, self.epochs_trained, self._meaning())
        return place_name(place)

    def load(self, name: str | Path | IO[bytes], with_opt: bool = True) -> Learner:
        """Load what `save` wrote.

        Args:
            name: The name given to `save`, or a file-like object that stands where `save` began to write.
            with_opt: Load the optimizer's state too, if it was saved.

        Returns:
            The learner.

        Raises:
            FileError: If it is missing or damaged, or the shapes in the optimizer's state are not the parameters'.
            ModelError: If the weights belong to another model, or mean something else than this data: other columns,
                codes of categories, classes, statistics or pixel scale.

        Example:
            >>> learn.load("mini_train")
        """
        self._materialise()
        opt = self._current_opt() if with_opt else None
        place = as_place(name, self.path / self.model_dir)
        has_opt, epochs_trained = load_checkpoint(place, self.model, opt, self._meaning())
        if has_opt:
            self.opt, self.epochs_trained = opt, epochs_trained
        self._remember_data()
        return self

    # --- how a fit is put together -----------------------------------------------------------------------------------

    def _fit(self, plan: FitPlan) -> None:
        with ExitStack() as stack:
            try:
                run = self._make_run(plan, stack.enter_context(self._use_of_generators()))
            except BaseException:
                if plan.resume_point is not None:
                    plan.resume_point.release()
                raise
            if plan.resume_point is not None:
                point = plan.resume_point
                stack.enter_context(resumed_generators(point.state, point.checkpoints.folder))
            self.recorder, self._last_fit = plan.recorder, (plan, run.fit)
            self._remember_data()
            try:
                with self._noting_changes(run.fit, plan):
                    self._run_fit(run)
            finally:
                plan.resume_point = None  # the point holds all tensors of the checkpoint
                self._threads_used = run.threads.number
                self.epochs_trained = run.first_epoch + (run.fit.epoch + 1 if run.fit.iteration else 0)

    @contextmanager
    def _noting_changes(self, fit: Fit | None = None, plan: FitPlan | None = None) -> Generator[None]:
        """Note what the block changes besides weights, such as caches: a fit that resumes may differ in it."""
        if not isinstance(self._source, DataBunch):
            yield
            return
        signature = plan.signature if plan is not None else None
        if signature is None:
            given = self.callbacks if plan is None else plan.resolved_callbacks or ()
            callbacks = [callback for callback in given if not isinstance(callback, type)]  # which the fit refuses
            signature = self._signature({}, callbacks, None if fit is None else fit.opt, is_quick=True)
        try:
            yield
        finally:
            signature.changed()
            self._changed |= signature.left_out

    def _outputs(self, which: Any) -> tuple[Any, Any]:
        with self._noting_changes(), self._threads_of_last_fit():
            return self._run_on(which)

    def _remember_data(self) -> None:
        """Remember how the rows were prepared that the model's weights are of."""
        if self.target is not None:
            _TRAINED_ON[self.model] = self.features, self.target

    def _use_of_generators(self) -> GeneratorUse:
        return GeneratorUse(self.model, self.device, (self.data.train_dl, self.data.valid_dl))

    def _run_fit(self, run: Run) -> None:
        outer, self._running = self._running, run.fit
        try:
            run_fit(run)
        finally:
            self._running = outer

    def _make_run(self, plan: FitPlan, generators: GeneratorUse) -> Run:
        epochs, data, objective = check_int(plan.epochs, "epochs", least=0), self.data, self._objective
        display = make_display(self.silent)
        for name, loader in (("train", data.train_dl), ("valid", data.valid_dl)):
            check_rows(loader, data, name)
        check_before_fit(self.model, objective, data.train_dl, data.valid_dl)
        callbacks = plan.resolved_callbacks
        plan.resolved_callbacks = callbacks = (
            self._resolve_callbacks(plan.callbacks) if callbacks is None else callbacks
        )
        hooks = collect_hooks(callbacks)
        self.opt = self._current_opt()
        fit = self._new_fit(epochs, plan.schedule, self.opt, plan.wd, plan.recorder)
        valid_columns = ("valid_loss", *fit.record.metric_names) if data.valid_dl is not None else ()
        fit.columns, fit.modes = ("train_loss", *valid_columns), known_modes(self.metrics)
        first_epoch = self.epochs_trained if plan.first_epoch is None else plan.first_epoch
        if untrained := untrained_parameters(self.loss_func, self.model):
            display.message(untrained)
        surroundings = self._surroundings(fit, callbacks) if plan.checkpoints is not None else None
        if plan.resume_point is not None:
            self._restore_checkpoint(plan.resume_point, fit, callbacks, surroundings)
        return Run(
            fit=fit,
            train_dl=data.train_dl,
            valid_dl=data.valid_dl,
            objective=objective,
            hooks=hooks,
            recorder=plan.recorder,
            display=display,
            seed=data.seed,
            engine=self.engine,
            first_epoch=first_epoch,
            checkpointer=self._make_checkpointer(plan, fit, callbacks, first_epoch, surroundings),
            start=plan.start,
            generators=generators,
            threads=self._threads(plan.resume_point),
        )

    def _threads(self, point: ResumePoint | None = None) -> Threads:
        """Return the threads of a fit; those of the run, if it is resumed."""
        saved = None if point is None else point.threads
        return Threads(check_threads(self.threads if saved is None else saved), is_used=self.device.type == "cpu")

    def _threads_of_last_fit(self) -> Threads:
        """Return as many threads, so that its numbers come out again; torch's own before a fit and within one."""
        used = None if self._running is not None else self._threads_used
        return Threads(is_used=False) if used is None else Threads(used)

    def _surroundings(self, fit: Fit, callbacks: list[Callback]) -> Surroundings:
        """Return what else the steps depend on. Objects that an earlier fit changed are not as the user made them."""
        parts = {"loss_func": self.loss_func, "metrics": self.metrics}
        loaders = {"training data": self.data.train_dl, "validation data": self.data.valid_dl}
        return Surroundings.of(fit, parts, callbacks, loaders, is_fresh=self._last_fit is None)

    def _restore_checkpoint(
        self, point: ResumePoint, fit: Fit, callbacks: list[Callback], surroundings: Surroundings | None
    ) -> None:
        restore_state(point.state, fit, callbacks, point.checkpoints.folder, surroundings)
        if point.blocks is not None and isinstance(data := self.data.train_dl, DiskLoader):
            try:
                data.use_blocks(*point.blocks)
            except ValueError as error:
                raise FileError(f"{point.checkpoints.folder}: not a checkpoint of this table ({error})") from error
        position = point.position
        fit.iteration = position.iteration
        fit.epoch = position.epoch if position.num_batch else max(position.epoch - 1, 0)
        if point.ended not in (None, FINISHED, *RESUMABLE):
            fit.stop_reason = point.ended  # a callback ended it

    def _make_checkpointer(
        self,
        plan: FitPlan,
        fit: Fit,
        callbacks: list[Callback],
        first_epoch: int,
        surroundings: Surroundings | None,
    ) -> CheckpointWriter | None:
        config, point = plan.checkpoints, plan.resume_point
        if config is None:
            return None
        weights_of(self.model)  # raises before training if the model cannot be saved
        if plan.signature is None:
            plan.signature = self._sign(callbacks, fit.opt)
            if unchecked := plan.signature.message():
                make_display(self.silent).message(unchecked)
        if (monitor := config.monitor) is not None:
            monitor.check(fit)
            config = replace(config, mode=monitor.mode)
        extra = {
            "wd": self.wd if plan.wd is None else plan.wd,
            "first_epoch": first_epoch,
            "blocks": data.blocks if isinstance(data := self.data.train_dl, DiskLoader) else None,
            "checkpoints": {"every": config.every, "keep": config.keep, "best": config.best, "mode": config.mode},
        }
        lock = point.lock if point is not None else acquire_run_lock(config, plan.start)
        is_new = plan.start is None
        return CheckpointWriter(config, fit, callbacks, plan.signature, lock, extra, is_new, surroundings)

    @property
    def _objective(self) -> Objective:
        target = self.target
        inverse_transform = target.inverse_transform if target is not None and target.task == "regression" else None
        return Objective(self.loss_func, self.metrics, self._forward, inverse_transform)

    def _new_fit(
        self, epochs: int, schedule: Schedule, opt: GroupedOptimizer, wd: WeightDecay | None, recorder: Recorder
    ) -> Fit:
        opt.set_wd(self.wd if wd is None else wd)
        meaning = cache(self._meaning)
        return Fit(self.model, opt, epochs, recorder.record, self.device, schedule, meaning=meaning)

    def _new_recorder(self, epochs: int, wd: WeightDecay | None, schedule_settings: dict[str, Any]) -> Recorder:
        self._materialise()
        data, optimizer = self.data, optimizer_class(self.opt_func)
        optimizer = torch.optim.AdamW if self.true_wd and optimizer is torch.optim.Adam else optimizer
        settings = {
            **schedule_settings,
            "epochs": epochs,
            "bs": data.train_dl.batch_size,
            "seed": data.seed,
            "optimizer": getattr(optimizer, "__name__", repr(optimizer)),
            "loss": loss_name(self.loss_func),
            "model": type(self.model).__name__,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "wd": self.wd if wd is None else wd,
            "true_wd": self.true_wd,
            "bn_wd": self.bn_wd,
            "precision": self.precision,
        }
        names = metric_names(self.metrics)
        return Recorder(Record(metric_names=names, settings=settings, versions=versions(self.device)))

    def _sign(self, callbacks: Sequence[Callback], opt: GroupedOptimizer | None = None) -> Signature:
        """Return what must be the same to resume a fit with these callbacks."""
        data, model, opt = self.data, self.model, opt or self._current_opt()
        weights = {name: f"{list(tensor.shape)} {tensor.dtype}" for name, tensor in model.state_dict().items()}
        options = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in opt.torch_opt.defaults.items()
            if isinstance(value, int | float | str | bool | tuple | None)
        }
        settings = {"seed": data.seed, "true_wd": self.true_wd, "bn_wd": self.bn_wd, "precision": self.precision}
        parts = {
            "signature": {"version": VERSION},
            "model": {"class": type(model).__qualname__, **weights},
            "preprocessing": meaning_digests(self._meaning()),
            "loss": {"function": loss_name(self.loss_func)},
            "optimizer": {"class": type(opt.torch_opt).__name__, **options},
            "machine": {"device": self.device.type, **machine()},
            "settings": {**settings, "metrics": metric_names(self.metrics)},
        }
        signature = self._signature(parts, callbacks, opt)
        signature.left_out |= self._changed
        return signature

    def _signature(
        self,
        parts: dict[str, dict[str, Any]],
        callbacks: Sequence[Callback],
        opt: GroupedOptimizer | None,
        is_quick: bool = False,
    ) -> Signature:
        loaders = {"training data": self.data.train_dl, "validation data": self.data.valid_dl}
        return Signature(parts, self._objective, self.model, opt, callbacks, loaders, self.target, is_quick)

    def _make_opt(self) -> GroupedOptimizer:
        groups = self._follow_model()
        check_opt_func(self.opt_func, groups)
        return GroupedOptimizer(self.opt_func, groups, self.true_wd, self.bn_wd)

    def _current_opt(self) -> GroupedOptimizer:
        """Return the optimizer, which trains what is trainable in the model now; a new one if there is none."""
        self._materialise()
        if self.opt is None or self.opt.layers is not self.layer_groups:
            return self._make_opt()
        if (self.opt.opt_func, self.opt.true_wd, self.opt.bn_wd) != (self.opt_func, self.true_wd, self.bn_wd):
            make_display(self.silent).message("optimizer: created anew, since opt_func, true_wd or bn_wd is another")
            return self._make_opt()
        if change := self.opt.follow(self.model):
            make_display(self.silent).message(change)
        return self.opt

    def _follow_model(self) -> LayerGroups:
        """Return the layer groups, with the layers that the model has now."""
        self._materialise()
        groups = self.layer_groups if isinstance(self.layer_groups, LayerGroups) else LayerGroups(self.layer_groups)
        groups.follow(self.model)
        self.layer_groups = groups
        return groups

    def _resolve_callbacks(self, extra: Callback | Sequence[Callback] | None) -> list[Callback]:
        """The learner's callbacks, those that `callback_fns` make, and `extra`."""
        more: list[Callback] = as_list(extra)
        check_callbacks([*self.callbacks, *more], self.callback_fns)
        return [*self.callbacks, *(make(self) for make in self.callback_fns), *more]


def load_learner(
    path: str | Path | IO[bytes],
    model: nn.Module | type[nn.Module] | None = None,
    data: DataBunch | object = None,
    device: str | None = None,
) -> Learner:
    """Load a bundle that `export` wrote as a learner, which with `data` can be trained further.

    The library's own metrics come back with it. The loss comes back if it is the default for the data or one of
    torch.nn's, without its settings; of any other only the name is known, which decides what predictions are: set
    `loss_func` before training.

    Args:
        path: The bundle: a folder, a .zip file, or a file-like object that stands where the bundle begins.
        model: The model's class or an instance, if the bundle asks for it. A traced model cannot be trained.
        data: Data to train on, prepared as the bundle says: `DataBunch.from_table(..., preprocessing=path)`, or what
            `from_table` takes, which is prepared so.
        device: Where to predict; by default the data's device, else the fastest there is.

    Returns:
        The learner.

    Raises:
        FileError: If the bundle is missing or damaged.
        ModelError: If the model's class is needed, or does not fit, or if `data` means something else than its weights:
            other columns, codes of categories, classes, statistics or pixel scale.

    Example:
        >>> learn = load_learner("digits.onecycle", data=data)
        >>> learn.fit(1, 1e-4)
    """
    module, info = read_checked_bundle(path, model)
    if data is not None and not isinstance(data, DataBunch):
        data = DataBunch.from_table(data, device=device, preprocessing=info)
    target_device = data.device if data is not None else pick_device(device)
    if data is not None:
        check_meaning(describe_meaning(info), describe_meaning(data), place_name(as_place(path)))
    learner = Learner(data or info, module, metrics=metrics_by_name(info.metrics))
    if data is None:
        learner.model, learner.device = module.to(target_device), target_device
        learner.loss_func = NamedLoss(info.loss)
    elif info.loss != loss_name(learner.loss_func):
        learner.loss_func = loss_by_name(info.loss)
    return learner
