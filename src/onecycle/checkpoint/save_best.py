"""SaveBest: save the weights of the best epoch."""

from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import torch
from torch import nn

from onecycle.checkpoint.weights import KIND, load_checkpoint, save_checkpoint
from onecycle.core.archives import check_replaceable
from onecycle.core.choices import Mode
from onecycle.errors import warn_user
from onecycle.train.callbacks.base import Callback
from onecycle.train.callbacks.monitor import Monitor, warn_of_nan
from onecycle.train.fit import Fit

_Parts: TypeAlias = dict[str, tuple[nn.Parameter | None, torch.Size | None]]


class SaveBest(Callback):
    """Save the model's weights after every epoch whose `monitor` is the best so far.

    With EMA the weights are those of the average. If `monitor` is NaN in every epoch, no weights are saved, the model
    stays as the last step left it, and a warning says so. The same if the model has other parameters when the fit ends
    than in its best epoch, such as a new head: the best weights are in the folder, and are not loaded.

    Args:
        folder: Folder that the weights are written to; `Learner.load` reads it, and an older one is replaced.
        monitor: "train_loss", "valid_loss" or the name of a metric.
        mode: "min" if lower is better, "max" if higher is better. None for losses, and metrics of which it is known:
            the library's, and those with an attribute `higher_is_better`, such as torchmetrics'.
        restore: Load the best weights into the model when the fit ends. The optimizer stays as the last step left it.

    Attributes:
        best: Best value so far, or None.
        epoch: Number of its epoch, or None.

    Raises:
        SettingError: If `mode` is unknown or, when a fit starts, it is needed, or `monitor` is not in its rows.
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
        self._model: nn.Module | None = None
        self._saved: _Parts | None = None  # what the weights in the folder are of; None if that is as it is now

    def resume_settings(self) -> dict[str, Any]:
        """Return the settings; the folder may have been moved."""
        return {**self.monitor.settings(), "restore": self.restore}

    def on_train_begin(self, fit: Fit) -> None:
        """Reset the best value, and check `monitor` and the folder."""
        self.monitor.check(fit)
        check_replaceable(self.folder, KIND, replace=True)
        self.best = self.epoch = None
        self._has_weights, self._epochs = False, 0
        self._model, self._saved = fit.model, None

    def on_epoch_end(self, fit: Fit) -> None:
        """Save the weights if the epoch is the best so far."""
        self._fits(fit.model)
        value = self.monitor.value(fit)
        if self.monitor.is_better(value, self.best):
            save_checkpoint(self.folder, fit.model, None, fit.epoch + 1, fit.meaning())
            self.best, self.epoch = value, fit.epoch
            self._saved = _parts(fit.model)
        self._has_weights = self.epoch is not None
        self._epochs += 1

    def on_train_end(self, fit: Fit) -> None:
        """Load the best weights; warn if they are of other parameters, or if no epoch had a number to compare."""
        if self.restore and self._has_weights:
            if not self._fits(fit.model):
                warn_user(
                    f"SaveBest: the model has other parameters, or of other shapes, than in epoch {self.epoch}, the "
                    f"best, whose weights are in {self.folder} and were not loaded: it is as the last step left it",
                )
            else:
                load_checkpoint(self.folder, fit.model, None, fit.meaning())
        epochs, self._has_weights, self._epochs = self._epochs, False, 0  # a later fit may fail before its first hook
        if epochs and self.best is None:
            warn_of_nan(f"SaveBest's monitor {self.monitor.name!r}", epochs, f"were saved in {self.folder}")

    def _fits(self, model: nn.Module) -> bool:
        """Return whether the model still has the parameters that the weights in the folder are of."""
        now = _parts(model)
        if self._saved is None:
            self._saved = now
        before = self._saved
        return now.keys() == before.keys() and all(
            parameter is before[name][0] and shape == before[name][1] for name, (parameter, shape) in now.items()
        )

    def state(self) -> dict[str, Any]:
        """Return the best value so far and its epoch; "fits" is False if the model has other parameters by now."""
        fits = self._model is None or self._fits(self._model)
        return {"best": self.best, "epoch": self.epoch, **({} if fits else {"fits": False})}

    def load_state(self, state: dict[str, Any]) -> None:
        """Set what `state` returned; the weights are those in the folder."""
        self.best, self.epoch = state["best"], state["epoch"]
        self._has_weights = self.epoch is not None
        self._saved = None if state.get("fits", True) else {}


def _parts(model: nn.Module) -> _Parts:
    """Return by name the shapes of all that a model saves, with the parameters themselves."""
    state: dict[str, Any] = model.state_dict(keep_vars=True)
    return {
        name: (value if isinstance(value, nn.Parameter) else None, getattr(value, "shape", None))
        for name, value in state.items()
    }
