"""Learner: joins data, model, loss and optimizer, and hands each task to the room it belongs to."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from onecycle.core.checks import whole
from onecycle.core.device import pick_device
from onecycle.core.errors import DataError, SettingError
from onecycle.core.models import TabularModel
from onecycle.core.record import Record
from onecycle.core.versions import versions
from onecycle.data.batches import Batches
from onecycle.data.bunch import DataBunch
from onecycle.keep.checkpoint import load_checkpoint, save_checkpoint
from onecycle.optim.groups import LayerGroup, Rate, freeze_groups, leaves, per_group, split_layers
from onecycle.optim.optimizers import AdamW, GroupedOptimizer, OptFunc
from onecycle.optim.schedules import Constant, Range, Schedule, momentum_pair, one_cycle_schedule
from onecycle.predictor import Predictor
from onecycle.show.progress import make_display
from onecycle.train import loop
from onecycle.train.callbacks import Callback, Fit, overridden
from onecycle.train.check import check_arguments, check_before_fit
from onecycle.train.describe import describe
from onecycle.train.engine import Engine
from onecycle.train.losses import default_loss
from onecycle.train.lr_find import LRFindResult, RangeTest, range_epochs
from onecycle.train.metrics import Metric, metric_name
from onecycle.train.recorder import Recorder
from onecycle.train.snapshot import copies, restored
from onecycle.train.step import LossFunc, forward_in

DEFAULT_LR = slice(3e-3)


class Learner(Predictor):
    """A model, its data, and how to train the one on the other.

    `model` is by default a TabularModel for data from a table. `loss_func` is by default cross-entropy for classes,
    binary cross-entropy for several labels, and mean squared error for floats. `opt_func` makes a torch optimizer from
    parameter groups. `wd` is the weight decay, `true_wd` decouples it from the gradient, `bn_wd=False` spares norms and
    biases. `callback_fns` are called with the learner at each fit and give a callback. `path / model_dir` is where
    `save` writes. `silent=True` shows nothing. `engine` is auto, eager or fast, `precision` fp32 or bf16, see
    docs/engine.md.
    """

    def __init__(
        self,
        data: DataBunch | None,
        model: nn.Module | None = None,
        loss_func: LossFunc | None = None,
        opt_func: OptFunc = AdamW,
        metrics: Metric | Sequence[Metric] | None = None,
        wd: float | Sequence[float] = 1e-2,
        true_wd: bool = True,
        bn_wd: bool = True,
        callbacks: Callback | Sequence[Callback] | None = None,
        callback_fns: Callable[["Learner"], Callback] | Sequence[Callable[["Learner"], Callback]] | None = None,
        path: str | Path | None = None,
        model_dir: str | Path = "models",
        silent: bool | None = None,
        engine: str = "auto",
        precision: str = "fp32",
    ) -> None:
        if data is not None and not isinstance(data, DataBunch):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise DataError(f"Learner takes a DataBunch, not a {type(data).__name__}; see DataBunch.create")
        if model is None and data is not None and data.features is not None:
            model = TabularModel(data.features.numbers, data.features.sizes, data.c)
        check_arguments(model, loss_func, _as_list(metrics))
        assert model is not None  # check_arguments raises for that
        super().__init__(model, data.device if data is not None else pick_device(), data, None)
        self.loss_func: LossFunc = loss_func or default_loss(data.task if data is not None else "classes")
        self.opt_func, self.wd, self.true_wd, self.bn_wd = opt_func, wd, true_wd, bn_wd
        self.metrics: list[Metric] = _as_list(metrics)
        self.callbacks: list[Callback] = _as_list(callbacks)
        self.callback_fns: list[Callable[[Learner], Callback]] = _as_list(callback_fns)
        self.path = Path(path if path is not None else data.path if data is not None else ".")
        self.model_dir, self.silent = Path(model_dir), silent
        self.layer_groups: list[LayerGroup] = [leaves(self.model)]
        self.opt: GroupedOptimizer | None = None
        self.recorder = Recorder()
        self.precision, self._forward = precision, forward_in(precision)
        self._engine = Engine(engine)
        self.epochs_trained = 0  # decides the batch order of the next epoch

    def __repr__(self) -> str:
        return f"Learner({type(self.model).__name__}, {self._data!r})"

    # --- training ------------------------------------------------------------------------------------------------

    def fit(
        self,
        epochs: int,
        lr: Rate = DEFAULT_LR,
        wd: float | Sequence[float] | None = None,
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        """Train for `epochs` at a constant learning rate.

        `slice(a, b)` spreads the rate over the layer groups; `wd` overrides the learner's for this fit. Raises
        SettingError for numbers that cannot be used, DataError and ModelError for what does not fit together, and
        NonFiniteLossError where the loss becomes NaN. Ctrl-C ends the fit; `recorder.stopped` says so.
        """
        lrs = per_group(lr, len(self.layer_groups))
        self._fit(epochs, Constant(lrs), wd, callbacks, {"schedule": "constant", "lr": lrs[-1]})

    def fit_one_cycle(
        self,
        cyc_len: int,
        max_lr: Rate = DEFAULT_LR,
        moms: float | tuple[float, float] = (0.95, 0.85),
        div_factor: float = 25.0,
        pct_start: float = 0.3,
        final_div: float | None = None,
        wd: float | Sequence[float] | None = None,
        callbacks: Sequence[Callback] | None = None,
    ) -> None:
        """Train for one cycle of `cyc_len` epochs (Leslie Smith, https://arxiv.org/abs/1803.09820).

        The learning rate rises from `max_lr / div_factor` to `max_lr` in the first `pct_start` of the steps and falls
        to `max_lr / final_div` (`div_factor * 1e4` where it is None); the momentum mirrors it between `moms`. Errors as
        in `fit`.
        """
        peaks, moms = per_group(max_lr, len(self.layer_groups), "max_lr"), momentum_pair(moms)
        final_div = div_factor * 1e4 if final_div is None else final_div
        steps = len(self.data.train_dl) * whole(cyc_len, "cyc_len", least=0)
        schedule = one_cycle_schedule(steps, peaks, moms, div_factor, pct_start, final_div)
        about = {
            "schedule": "one cycle",
            "max_lr": peaks[-1],
            "moms": list(moms),
            "div_factor": div_factor,
        }
        self._fit(cyc_len, schedule, wd, callbacks, about | {"pct_start": pct_start, "final_div": final_div})

    def lr_find(
        self,
        start_lr: Rate = 1e-7,
        end_lr: Rate = 10,
        num_it: int = 100,
        stop_div: bool = True,
        wd: float | Sequence[float] | None = None,
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
        if fit.stop_reason == "interrupted":
            raise KeyboardInterrupt
        self.recorder = recorder
        display.say("LR Finder is complete, type {learner_name}.recorder.plot() to see the graph.")
        return LRFindResult(recorder.lrs, recorder.losses)

    def _fit(
        self,
        epochs: int,
        schedule: Schedule,
        wd: float | Sequence[float] | None,
        callbacks: Sequence[Callback] | None,
        about: dict[str, Any],
    ) -> None:
        epochs = whole(epochs, "epochs", least=0)
        data = self.data
        check_before_fit(self.model, self.loss_func, data.train_dl, data.valid_dl, self.metrics)
        hooks = overridden(self._all_callbacks(callbacks))
        settings = {
            **about,
            "epochs": epochs,
            "bs": data.train_dl.batch_size,
            "seed": data.seed,
            **self._described(wd),
        }
        names = [metric_name(metric) for metric in self.metrics]
        recorder = Recorder(Record(metric_names=names, settings=settings, versions=versions(self.device)))
        self.opt = self.opt or self._make_opt()
        fit = self._start(epochs, schedule, self.opt, wd, recorder)
        fit.columns = ("train_loss", *(("valid_loss", *names) if data.valid_dl is not None else ()))
        self.recorder = recorder
        try:
            loop.fit(
                fit, data.train_dl, data.valid_dl, self.loss_func, self.metrics, hooks, recorder,
                make_display(self.silent), self._engine, self._forward, data.seed, self.epochs_trained,
                restore=self._restore(),
            )  # fmt: skip
        finally:
            self.epochs_trained += fit.epoch + 1 if fit.iteration else 0

    def _restore(self) -> Callable[[Tensor], Tensor] | None:
        """What gives predictions and targets back in the target's units, for the metrics."""
        target = self.data.target
        return target.restore if target is not None and target.task == "regression" else None

    def _start(
        self,
        epochs: int,
        schedule: Schedule,
        opt: GroupedOptimizer,
        wd: float | Sequence[float] | None,
        recorder: Recorder,
    ) -> Fit:
        opt.set_wd(self.wd if wd is None else wd)
        return Fit(self.model, opt, epochs, recorder.record, self.device, schedule)

    def _make_opt(self) -> GroupedOptimizer:
        return GroupedOptimizer(self.opt_func, self.layer_groups, self.true_wd, self.bn_wd)

    def _all_callbacks(self, extra: Sequence[Callback] | None) -> list[Callback]:
        return [*self.callbacks, *(make(self) for make in self.callback_fns), *_as_list(extra)]

    def _described(self, wd: float | Sequence[float] | None) -> dict[str, Any]:
        wd = self.wd if wd is None else wd
        return describe(self.model, self.loss_func, self.opt_func, self.true_wd) | {
            "wd": wd,
            "true_wd": self.true_wd,
            "bn_wd": self.bn_wd,
            "precision": self.precision,
        }

    # --- layer groups --------------------------------------------------------------------------------------------

    def split(self, at: nn.Module | Iterable[nn.Module] | Callable[[nn.Module], Any]) -> "Learner":
        """Cut the model into layer groups, each starting at one of the modules `at`; the optimizer is made anew."""
        self.layer_groups = split_layers(self.model, [at] if isinstance(at, nn.Module) else at)
        self.opt = None
        return self

    def freeze_to(self, n: int) -> None:
        """Train only the layer groups from `n` on (and BatchNorm layers everywhere); the optimizer is made anew."""
        freeze_groups(self.layer_groups, n)
        self.opt = None

    def freeze(self) -> None:
        """Train only the last layer group. Raises SettingError where there is only one."""
        if len(self.layer_groups) < 2:
            raise SettingError(
                "freeze: the model has one layer group; cut it first, for example learn.split(model.lin2)"
            )
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Train all layer groups."""
        self.freeze_to(0)

    def validate(self, which: str | Batches = "valid") -> list[float]:
        """The loss and each metric on the valid (or train, test, fix) set, averages weighed by batch size."""
        loader, restore = self.loader(which), self._restore()
        return loop.evaluate(self.model, loader, self.loss_func, self.metrics, self._forward, restore=restore)

    # --- files ---------------------------------------------------------------------------------------------------

    def save(self, name: str, with_opt: bool = True) -> Path:
        """Write weights and, `with_opt`, the optimizer's state to `path / model_dir / name`; returns that folder.

        A checkpoint of the same name is replaced. Raises OutputError where it cannot be written.
        """
        folder = self.path / self.model_dir / name
        save_checkpoint(folder, self.model, self.opt if with_opt else None, self.epochs_trained)
        return folder

    def load(self, name: str, with_opt: bool = True) -> "Learner":
        """Take over what `save` wrote. Raises FileError where it is missing or damaged, ModelError for another's."""
        opt = (self.opt or self._make_opt()) if with_opt else None
        found, epochs_trained = load_checkpoint(self.path / self.model_dir / name, self.model, opt)
        if found:
            self.opt, self.epochs_trained = opt, epochs_trained
        return self


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
