"""EarlyStopping: end a fit that no longer gets better."""

from numbers import Real
from typing import Any

from onecycle.core.checks import check_int
from onecycle.errors import SettingError
from onecycle.train.callbacks.base import Callback
from onecycle.train.callbacks.monitor import Monitor
from onecycle.train.fit import Fit


class EarlyStopping(Callback):
    """Stop after `patience` epochs in which `monitor` was no better than its best so far by more than `min_delta`.

    `monitor` is train_loss, valid_loss or a metric's name; `mode` is min where lower is better, max where higher, and
    None lets the name decide. In a cycle a high learning rate keeps the loss up, and most of the gain comes when it
    falls: with `wait_for_annealing` only the epochs count that end after the rate has begun to fall. For a constant
    rate those are all. The model stays as the last epoch left it; SaveBest gives the best one.
    """

    def __init__(
        self,
        monitor: str = "valid_loss",
        patience: int = 3,
        min_delta: float = 0.0,
        wait_for_annealing: bool = True,
        mode: str | None = None,
    ) -> None:
        self.monitor = Monitor(monitor, mode, "EarlyStopping")
        self.patience = check_int(patience, "EarlyStopping's patience", least=1)
        if isinstance(min_delta, bool) or not isinstance(min_delta, Real) or not 0 <= min_delta < float("inf"):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise SettingError(f"EarlyStopping's min_delta is {min_delta!r}; expected a finite number of at least 0")
        self.min_delta, self.wait_for_annealing = float(min_delta), wait_for_annealing
        self.best: float | None = None
        self.waited = 0

    def on_train_begin(self, fit: Fit) -> None:
        """Start anew. Raises SettingError where the fit's epochs will not have the number."""
        self.monitor.check(fit)
        self.best, self.waited = None, 0

    def on_epoch_end(self, fit: Fit) -> None:
        """Look at the epoch's row."""
        value = self.monitor.value(fit)
        if self.monitor.is_better(value, self.best, self.min_delta):
            self.best, self.waited = value, 0
        elif not self.wait_for_annealing or fit.iteration > fit.schedule.anneals_from:
            self.waited += 1
        if self.waited >= self.patience:
            epochs = "1 epoch" if self.patience == 1 else f"{self.patience} epochs"
            best = "" if self.best is None else f" than {self.best:.6f}"
            fit.stop(f"{self.monitor.name} was no better{best} for {epochs}")

    def state(self) -> dict[str, Any]:
        """The best value so far, and the epochs since."""
        return {"best": self.best, "waited": self.waited}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self.best, self.waited = state["best"], state["waited"]
