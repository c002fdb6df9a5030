"""Learner: joins data, model, loss and optimizer, and hands each task to the room it belongs to."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from onecycle.continuing import Continuing
from onecycle.core.device import pick_device
from onecycle.core.errors import DataError, SettingError
from onecycle.core.models import TabularModel
from onecycle.data.batches import Batches
from onecycle.data.bunch import DataBunch
from onecycle.keep.checkpoint import load_checkpoint, save_checkpoint
from onecycle.optim.groups import LayerGroup, freeze_groups, leaves, split_layers
from onecycle.optim.optimizers import AdamW, GroupedOptimizer, OptFunc
from onecycle.train import loop
from onecycle.train.callbacks import Callback
from onecycle.train.check import check_arguments
from onecycle.train.engine import Engine
from onecycle.train.losses import default_loss
from onecycle.train.metrics import Metric
from onecycle.train.recorder import Recorder
from onecycle.train.step import LossFunc, forward_in
from onecycle.trainer import as_list


class Learner(Continuing):
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
        check_arguments(model, loss_func, as_list(metrics))
        assert model is not None  # check_arguments raises for that
        super().__init__(model, data.device if data is not None else pick_device(), data, None)
        self.loss_func: LossFunc = loss_func or default_loss(data.task if data is not None else "classes")
        self.opt_func, self.wd, self.true_wd, self.bn_wd = opt_func, wd, true_wd, bn_wd
        self.metrics: list[Metric] = as_list(metrics)
        self.callbacks: list[Callback] = as_list(callbacks)
        self.callback_fns: list[Callable[[Learner], Callback]] = as_list(callback_fns)
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
