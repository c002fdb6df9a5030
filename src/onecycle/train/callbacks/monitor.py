"""Monitor: a number of each epoch's row that a callback watches, and which of two of its values is better."""

import math
import warnings
from dataclasses import dataclass
from typing import get_args

from onecycle.core.choices import Mode
from onecycle.errors import SettingError, did_you_mean
from onecycle.train.fit import Fit

_LOWER = ("loss", "err", "mse", "mae", "mape", "absolute", "squared", "nll", "perplexity", "brier", "hamming", "hinge")


@dataclass(frozen=True)
class Monitor:
    """A monitored number.

    Attributes:
        name: "train_loss", "valid_loss" or the name of a metric.
        mode: "min" if lower is better, "max" if higher is better. With None the name decides: lower is better for
            losses and errors, higher for other metrics.
        owner: Name of the callback, for error messages.
    """

    name: str
    mode: Mode | None
    owner: str

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in get_args(Mode):
            hint = did_you_mean(self.mode, get_args(Mode))
            raise SettingError(f"{self.owner}'s mode is {self.mode!r}; expected min, max or None{hint}")

    @property
    def is_lower_better(self) -> bool:
        """Whether the lowest value is the best."""
        if self.mode is not None:
            return self.mode == "min"
        return any(word in self.name.lower() for word in _LOWER)

    def check(self, fit: Fit) -> None:
        """Raise SettingError if the fit's rows will not have the number. The LR finder has no rows, and no error."""
        if not fit.columns or self.name in fit.columns:
            return
        message = f"{self.owner}'s monitor is {self.name!r}; expected one of {', '.join(fit.columns)}"
        if self.name == "valid_loss" or self.name in fit.record.metric_names:
            raise SettingError(f"{message}, since there is no validation set: give the data one, or monitor train_loss")
        raise SettingError(f"{message}{did_you_mean(self.name, fit.columns)}")

    def value(self, fit: Fit) -> float:
        """Return the number in the last row, or NaN if the row lacks it."""
        record = fit.record
        if self.name == "train_loss":
            return record.losses[-1] if record.losses else math.nan
        names, values = ["valid_loss", *record.metric_names], [record.val_losses[-1], *record.metrics[-1]]
        value = dict(zip(names, values, strict=True)).get(self.name)
        return math.nan if value is None else value

    def is_better(self, value: float, best: float | None, by: float = 0.0) -> bool:
        """Return whether `value` is better than `best` by more than `by`. Any number beats None; NaN never does."""
        if best is None:
            return not math.isnan(value)
        return value < best - by if self.is_lower_better else value > best + by


def warn_of_nan(monitor: str, epochs: int, consequence: str) -> None:
    """Warn that a monitored number was NaN in all epochs, so that none was the best."""
    warnings.warn(
        f"{monitor} was NaN after {'the only epoch' if epochs == 1 else f'each of {epochs:,} epochs'}, so that no "
        f"weights {consequence}; the model is as the last step left it: monitor another number, such as valid_loss, "
        "or give the validation set what the metric needs (for example rows of every class)",
        stacklevel=3,
    )
