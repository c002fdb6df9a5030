"""Monitor: a number of each epoch's row that a callback watches, and which of two of its values is better."""

import math
from collections.abc import Sequence
from typing import Any, get_args

from onecycle.core.choices import Mode
from onecycle.errors import SettingError, did_you_mean, warn_user
from onecycle.train.epoch_metrics import average_precision, f1_score, mae, mse, r2_score, rmse, roc_auc
from onecycle.train.fit import Fit
from onecycle.train.metrics import (
    Metric,
    accuracy,
    error_rate,
    inner_metric,
    mean_absolute_error,
    mean_squared_error,
    metric_names,
    root_mean_squared_error,
    top_k_accuracy,
)

_HIGH = (accuracy, top_k_accuracy, f1_score, roc_auc, average_precision, r2_score)
_LOW = (error_rate, mean_squared_error, mean_absolute_error, root_mean_squared_error, mse, mae, rmse)
_LOSSES: dict[str, Mode] = {"train_loss": "min", "valid_loss": "min"}


def known_modes(metrics: Sequence[Metric]) -> dict[str, Mode]:
    """Return, by column, whether low ("min") or high values are better: of the losses, and of metrics that say so.

    Those are the library's own, also in a partial or marked with `epoch_metric` again, and metrics with an attribute
    `higher_is_better`, as torchmetrics' have it. A name says nothing.
    """
    modes = dict(_LOSSES)
    for name, metric in zip(metric_names(metrics), metrics, strict=True):
        if (mode := _mode_of(metric)) is not None:
            modes[name] = mode
    return modes


def _mode_of(metric: Any) -> Mode | None:
    while metric is not None:
        higher = getattr(metric, "higher_is_better", None)
        if isinstance(higher, bool):
            return "max" if higher else "min"
        if any(metric is function for function in _HIGH):
            return "max"
        if any(metric is function for function in _LOW):
            return "min"
        metric = inner_metric(metric)
    return None


class Monitor:
    """A monitored number.

    Args:
        name: "train_loss", "valid_loss" or the name of a metric.
        mode: "min" if lower is better, "max" if higher is better. None if `check` shall ask the fit.
        owner: Name of the callback, for error messages.

    Attributes:
        mode: The argument, or what the last fit said.
    """

    def __init__(self, name: str, mode: Mode | None, owner: str) -> None:
        if mode is not None and mode not in get_args(Mode):
            hint = did_you_mean(mode, get_args(Mode))
            raise SettingError(f"{owner}'s mode is {mode!r}; expected min, max or None{hint}")
        self.name, self.owner, self.mode = name, owner, mode or _LOSSES.get(name)
        self._is_given = mode is not None

    def settings(self) -> dict[str, Any]:
        """Return the arguments that decide what is the best."""
        return {"monitor": self.name, "mode": self.mode if self._is_given else None}

    def check(self, fit: Fit) -> None:
        """Take the mode from the fit, if none was given.

        Raises SettingError if the fit's rows will not have the number, or if it is not known which values are better.
        The LR finder has no rows, and no error.
        """
        if not fit.columns:
            return
        message = f"{self.owner}'s monitor is {self.name!r}"
        if self.name not in fit.columns:
            message += f"; expected one of {', '.join(fit.columns)}"
            if self.name == "valid_loss" or self.name in fit.record.metric_names:
                raise SettingError(
                    f"{message}, since there is no validation set: give the data one, or monitor train_loss"
                )
            raise SettingError(f"{message}{did_you_mean(self.name, fit.columns)}")
        if not self._is_given:
            self.mode = fit.modes.get(self.name)
        if self.mode is None:
            raise SettingError(
                f'{message}, and whether its best value is the lowest or the highest is not known; set mode="min" or '
                'mode="max", or give the metric an attribute: higher_is_better = True, or False'
            )

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
        return value < best - by if self.mode == "min" else value > best + by


def warn_of_nan(monitor: str, epochs: int, consequence: str) -> None:
    """Warn that a monitored number was NaN in all epochs, so that none was the best."""
    warn_user(
        f"{monitor} was NaN after {'the only epoch' if epochs == 1 else f'each of {epochs:,} epochs'}, so that no "
        f"weights {consequence}; the model is as the last step left it: monitor another number, such as valid_loss, "
        "or give the validation set what the metric needs (for example rows of every class)",
    )
