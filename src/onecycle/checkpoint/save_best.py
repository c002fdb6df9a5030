"""SaveBest: keep the weights of the best epoch."""

from pathlib import Path
from typing import Any, ClassVar

from onecycle.checkpoint.weights import KIND, load_checkpoint, save_checkpoint
from onecycle.core.choices import Mode
from onecycle.core.folders import check_replaceable
from onecycle.train.callbacks.base import Callback
from onecycle.train.callbacks.monitor import Monitor
from onecycle.train.fit import Fit


class SaveBest(Callback):
    """Write the model's weights to `folder` after every epoch whose `monitor` is the best so far.

    `monitor` is train_loss, valid_loss or a metric's name; `mode` is min where lower is better, max where higher, and
    None lets the name decide. At the end of the fit `restore` loads the best weights into the model; the optimizer
    stays as the last step left it. The folder is one that `Learner.load` reads, and an older one is replaced. With EMA
    the weights are those of the average.
    """

    order: ClassVar[int] = 2  # after EMA has put its average into the model

    def __init__(
        self, folder: str | Path, monitor: str = "valid_loss", mode: Mode | None = None, restore: bool = True
    ) -> None:
        self.folder, self.restore = Path(folder), restore
        self.monitor = Monitor(monitor, mode, "SaveBest")
        self.best: float | None = None
        self.epoch: int | None = None
        self._to_restore = False  # whether there are weights, and an epoch of this fit was looked at

    def on_train_begin(self, fit: Fit) -> None:
        """Start anew. Raises SettingError for a number that there will not be, OutputError for a taken place."""
        self.monitor.check(fit)
        check_replaceable(self.folder, KIND, replace=True)
        self.best = self.epoch = None
        self._to_restore = False

    def on_epoch_end(self, fit: Fit) -> None:
        """Write the weights where the epoch is the best so far. Raises OutputError where that cannot be done."""
        value = self.monitor.value(fit)
        if self.monitor.is_better(value, self.best):
            save_checkpoint(self.folder, fit.model, None, fit.epoch + 1)
            self.best, self.epoch = value, fit.epoch
        self._to_restore = self.epoch is not None

    def on_train_end(self, fit: Fit) -> None:
        """Load the best weights. Raises FileError where they are not there any more."""
        if self.restore and self._to_restore:
            load_checkpoint(self.folder, fit.model, None)
        self._to_restore = False  # a later fit may fail before its first hook, and end

    def state(self) -> dict[str, Any]:
        """The best value so far, and its epoch."""
        return {"best": self.best, "epoch": self.epoch}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave; the weights are those in the folder."""
        self.best, self.epoch = state["best"], state["epoch"]
        self._to_restore = self.epoch is not None
