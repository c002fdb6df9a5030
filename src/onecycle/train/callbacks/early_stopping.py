"""EarlyStopping: end a fit that no longer improves."""

from numbers import Real
from typing import Any

from onecycle.core.checks import check_int
from onecycle.core.choices import Mode
from onecycle.errors import SettingError, pluralize
from onecycle.train.callbacks.base import Callback
from onecycle.train.callbacks.monitor import Monitor
from onecycle.train.fit import Fit


class EarlyStopping(Callback):
    """Stop the fit after `patience` epochs without an improvement.

    The model stays as the last epoch left it; use SaveBest to get the best one.

    Args:
        monitor: The number to watch: "train_loss", "valid_loss" or the name of a metric.
        patience: Number of epochs without an improvement after which the fit stops, at least 1.
        min_delta: An epoch is an improvement if it is better than the best so far by more than this.
        wait_for_annealing: Count only epochs that end after the learning rate has begun to fall. While it is high the
            loss stays up, and most of the improvement comes when it falls. At a constant rate all epochs count.
        mode: "min" if lower is better, "max" if higher is better. None for losses, and metrics of which it is known:
            the library's, and those with an attribute `higher_is_better`, such as torchmetrics'.

    Raises:
        SettingError: If a setting cannot be used, or (when the fit begins) if the fit does not have the number, or
            `mode` is needed.

    Example:
        >>> learn.fit(50, 1e-3, callbacks=EarlyStopping("accuracy", patience=5))
    """

    def __init__(
        self,
        monitor: str = "valid_loss",
        patience: int = 3,
        min_delta: float = 0.0,
        wait_for_annealing: bool = True,
        mode: Mode | None = None,
    ) -> None:
        self.monitor = Monitor(monitor, mode, "EarlyStopping")
        self.patience = check_int(patience, "EarlyStopping's patience", least=1)
        if isinstance(min_delta, bool) or not isinstance(min_delta, Real) or not 0 <= min_delta < float("inf"):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise SettingError(f"EarlyStopping's min_delta is {min_delta!r}; expected a finite number of at least 0")
        self.min_delta, self.wait_for_annealing = float(min_delta), wait_for_annealing
        self.best: float | None = None
        self.waited = 0

    def resume_settings(self) -> dict[str, Any]:
        """Return the settings."""
        return {
            **self.monitor.settings(),
            "patience": self.patience,
            "min_delta": self.min_delta,
            "wait_for_annealing": self.wait_for_annealing,
        }

    def on_train_begin(self, fit: Fit) -> None:
        """Reset. Raises SettingError if the fit's rows will not have the number."""
        self.monitor.check(fit)
        self.best, self.waited = None, 0

    def on_epoch_end(self, fit: Fit) -> None:
        """Compare the epoch with the best so far; stop if there was no improvement for `patience` epochs."""
        value = self.monitor.value(fit)
        if self.monitor.is_better(value, self.best, self.min_delta):
            self.best, self.waited = value, 0
        elif not self.wait_for_annealing or fit.iteration > fit.schedule.anneals_from:
            self.waited += 1
        if self.waited >= self.patience:
            state = "NaN" if self.best is None else f"no better than {self.best:.6f}"
            fit.stop(f"{self.monitor.name} was {state} for {pluralize(self.patience, 'epoch')}")

    def state(self) -> dict[str, Any]:
        """Return the best value so far, and the epochs since."""
        return {"best": self.best, "waited": self.waited}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.best, self.waited = state["best"], state["waited"]
