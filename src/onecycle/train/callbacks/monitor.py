"""A number of each epoch's row that a callback watches, and which of two values of it is the better one."""

import math
from dataclasses import dataclass

from onecycle.errors import SettingError, did_you_mean
from onecycle.train.fit import Fit

MODES = ("min", "max")
_LOWER = ("loss", "err", "mse", "mae", "mape", "absolute", "squared", "nll", "perplexity", "brier", "hamming", "hinge")


@dataclass(frozen=True)
class Monitor:
    """`name` is train_loss, valid_loss or a metric's; `mode` says whether the lowest (min) or the highest is the best.

    Where it is None the name decides: losses and errors are better low, other metrics high. `owner` is the callback,
    for messages.
    """

    name: str
    mode: str | None
    owner: str

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in MODES:
            hint = did_you_mean(self.mode, MODES)
            raise SettingError(f"{self.owner}'s mode is {self.mode!r}; expected min, max or None{hint}")

    @property
    def is_lower_better(self) -> bool:
        """Whether the lowest value is the best."""
        if self.mode is not None:
            return self.mode == "min"
        return any(word in self.name.lower() for word in _LOWER)

    def check(self, fit: Fit) -> None:
        """Raises SettingError where the fit's rows will not have the number. The finder has no rows, and no error."""
        if not fit.columns or self.name in fit.columns:
            return
        what = f"{self.owner}'s monitor is {self.name!r}; expected one of {', '.join(fit.columns)}"
        if self.name == "valid_loss" or self.name in fit.record.metric_names:
            raise SettingError(f"{what}, since there is no validation set: give the data one, or monitor train_loss")
        raise SettingError(f"{what}{did_you_mean(self.name, fit.columns)}")

    def value(self, fit: Fit) -> float:
        """The number in the last row; NaN where there is none."""
        record = fit.record
        if self.name == "train_loss":
            return record.losses[-1] if record.losses else math.nan
        found = dict(
            zip(["valid_loss", *record.metric_names], [record.val_losses[-1], *record.metrics[-1]], strict=True)
        )
        value = found.get(self.name)
        return math.nan if value is None else value

    def is_better(self, value: float, best: float | None, by: float = 0.0) -> bool:
        """Whether `value` is better than `best` by more than `by`. Anything is better than None, NaN than nothing."""
        if best is None:
            return not math.isnan(value)
        return value < best - by if self.is_lower_better else value > best + by
