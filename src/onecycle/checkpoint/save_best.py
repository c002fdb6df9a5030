"""SaveBest: save the weights of the best epoch."""

from pathlib import Path
from typing import Any, ClassVar

from onecycle.checkpoint.weights import KIND, load_checkpoint, save_checkpoint
from onecycle.core.archives import check_replaceable
from onecycle.core.choices import Mode
from onecycle.train.callbacks.base import Callback
from onecycle.train.callbacks.monitor import Monitor, warn_of_nan
from onecycle.train.fit import Fit


class SaveBest(Callback):
    """Save the model's weights after every epoch whose `monitor` is the best so far.

    With EMA the weights are those of the average. If `monitor` is NaN in every epoch, no weights are saved, the model
    stays as the last step left it, and a warning says so.

    Args:
        folder: Folder that the weights are written to; `Learner.load` reads it, and an older one is replaced.
        monitor: "train_loss", "valid_loss" or the name of a metric.
        mode: "min" if lower is better, "max" if higher; None decides by the name: losses and errors are better low.
        restore: Load the best weights into the model when the fit ends. The optimizer stays as the last step left it.

    Attributes:
        best: Best value so far, or None.
        epoch: Number of its epoch, or None.

    Raises:
        SettingError: If `mode` is unknown or, when a fit starts, `monitor` is not in its rows.
        OutputError: If the folder holds something else, or cannot be written.
        FileError: If the weights are gone when the fit ends.

    Example:
        >>> learn.fit_one_cycle(10, 1e-2, callbacks=[SaveBest("models/best", monitor="accuracy")])
    """

    order: ClassVar[int] = 2  # after EMA has put its average into the model

    def __init__(
        self, folder: str | Path, monitor: str = "valid_loss", mode: Mode | None = None, restore: bool = True
    ) -> None:
        self.folder, self.restore = Path(folder), restore
        self.monitor = Monitor(monitor, mode, "SaveBest")
        self.best: float | None = None
        self.epoch: int | None = None
        self._has_weights = False  # of an epoch of this fit, or of the one that it resumes
        self._epochs = 0  # that this fit ended

    def on_train_begin(self, fit: Fit) -> None:
        """Reset the best value, and check `monitor` and the folder."""
        self.monitor.check(fit)
        check_replaceable(self.folder, KIND, replace=True)
        self.best = self.epoch = None
        self._has_weights, self._epochs = False, 0

    def on_epoch_end(self, fit: Fit) -> None:
        """Save the weights if the epoch is the best so far."""
        value = self.monitor.value(fit)
        if self.monitor.is_better(value, self.best):
            save_checkpoint(self.folder, fit.model, None, fit.epoch + 1)
            self.best, self.epoch = value, fit.epoch
        self._has_weights = self.epoch is not None
        self._epochs += 1

    def on_train_end(self, fit: Fit) -> None:
        """Load the best weights; warn if no epoch had a number to compare, so that none were saved."""
        if self.restore and self._has_weights:
            load_checkpoint(self.folder, fit.model, None)
        epochs, self._has_weights, self._epochs = self._epochs, False, 0  # a later fit may fail before its first hook
        if epochs and self.best is None:
            warn_of_nan(f"SaveBest's monitor {self.monitor.name!r}", epochs, f"were saved in {self.folder}")

    def state(self) -> dict[str, Any]:
        """Return the best value so far, and its epoch."""
        return {"best": self.best, "epoch": self.epoch}

    def load_state(self, state: dict[str, Any]) -> None:
        """Set what `state` returned; the weights are those in the folder."""
        self.best, self.epoch = state["best"], state["epoch"]
        self._has_weights = self.epoch is not None
