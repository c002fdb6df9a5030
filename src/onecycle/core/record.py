"""The record of a run: plain numbers that plots, tables and reports read, and that are saved as JSON."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any

from onecycle.core.files import read_json, write_json
from onecycle.errors import FileError, SettingError

SMOOTHING = 0.98  # of the training loss
_SMALLEST_FIXED = 5e-7  # numbers below are shown in scientific notation
_PER_BATCH = ("lrs", "moms", "batch_losses", "losses")
_PER_EPOCH = ("epochs", "nb_batches", "val_losses", "metrics", "seconds")
_WITH_NONFINITE = (*_PER_BATCH, "val_losses", "metrics", "seconds", "settings", "lr_curve")


@dataclass
class Record:
    """The numbers of one fit. Plots, tables and reports only read them.

    Attributes:
        lrs: Learning rate of the last layer group, for each batch.
        moms: Momentum for each batch; None if the optimizer has none.
        batch_losses: Training loss for each batch, as the loss function returned it.
        losses: Smoothed training loss for each batch, see `Smoother`.
        nb_batches: Number of batches trained on, for each epoch.
        epochs: Number of each epoch, from 0.
        val_losses: Validation loss for each epoch; None without a validation set.
        metrics: Values of the metrics for each epoch, in the order of `metric_names`.
        seconds: Duration of each epoch, in seconds.
        metric_names: Names of the metrics.
        stopped: Why the fit ended before its last epoch, or None.
        settings: Settings of the fit.
        versions: Versions of Python, of the libraries and the device.
        lr_curve: `lrs` and `losses` of the LR finder and the `suggestion` that was used, or None.
        mistakes: Summary of the errors on the validation set (`show/interpret.py`), or None.

    Example:
        >>> learn.fit_one_cycle(1, 1e-2)
        >>> learn.recorder.record.save("record.json")
        >>> Record.load("record.json").val_losses
    """

    lrs: list[float] = field(default_factory=list[float])
    moms: list[float | None] = field(default_factory=list[float | None])
    batch_losses: list[float] = field(default_factory=list[float])
    losses: list[float] = field(default_factory=list[float])
    nb_batches: list[int] = field(default_factory=list[int])
    epochs: list[int] = field(default_factory=list[int])
    val_losses: list[float | None] = field(default_factory=list[float | None])
    metrics: list[list[float | None]] = field(default_factory=list[list[float | None]])
    seconds: list[float] = field(default_factory=list[float])
    metric_names: list[str] = field(default_factory=list[str])
    stopped: str | None = None
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    lr_curve: dict[str, Any] | None = None
    mistakes: dict[str, Any] | None = None

    @property
    def column_names(self) -> list[str]:
        """Names of the columns of the table that a fit prints."""
        return ["epoch", "train_loss", "valid_loss", *self.metric_names, "time"]

    def row(self, index: int = -1) -> list[str]:
        """Return the table row of one epoch as text.

        Args:
            index: Index of the epoch; negative ones count from the last.

        Returns:
            A text for each of `column_names`: losses and metrics with six decimals, "#na#" for a missing value, the
            time as MM:SS.

        Raises:
            SettingError: If there is no such epoch.
        """
        epochs = range(len(self.epochs))
        if not -len(epochs) <= index < len(epochs):
            raise SettingError(f"there is no row {index}; the record has {len(epochs)} epochs")
        index = epochs[index]
        return self._row(index, sum(self.nb_batches[: index + 1]))

    def rows(self) -> list[list[str]]:
        """Return the table: the `row` of each epoch."""
        ends = accumulate(self.nb_batches) if self.nb_batches else repeat(0)
        return [self._row(index, end) for index, end in zip(range(len(self.epochs)), ends, strict=False)]

    def _row(self, index: int, batches: int) -> list[str]:
        """Return the row of an epoch that ended after `batches` batches."""
        train_loss = self.losses[batches - 1] if 0 < batches <= len(self.losses) else None
        values = [train_loss, self.val_losses[index] if self.val_losses else None]
        values += self.metrics[index] if self.metrics else []
        minutes, seconds = divmod(round(self.seconds[index]) if self.seconds else 0, 60)
        return [str(self.epochs[index]), *map(format_value, values), f"{minutes:02d}:{seconds:02d}"]

    def to_json(self) -> str:
        """Return the record as strict JSON; NaN and infinities become the strings "nan", "inf" and "-inf"."""
        return json.dumps(encode_nonfinite(asdict(self)), indent=1, allow_nan=False, default=to_jsonable)

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """Return the record that `to_json` wrote; unknown keys are ignored.

        Args:
            text: The JSON text.

        Raises:
            ValueError: If it is not a record, or values do not belong together.
        """
        return cls._from_values(json.loads(text))

    def save(self, path: str | Path) -> None:
        """Write the record to `path` as JSON with its SHA-256, atomically.

        Args:
            path: The file; an existing one is replaced.

        Raises:
            OutputError: If it cannot be written.
        """
        write_json(Path(path), json.loads(self.to_json()))

    @classmethod
    def load(cls, path: str | Path) -> "Record":
        """Read a record that `save` wrote.

        Args:
            path: The file.

        Raises:
            FileError: If it is missing, damaged or not a record.
        """
        try:
            return cls._from_values(read_json(Path(path)))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise FileError(f"{path}: not a readable record ({error}); expected JSON that onecycle wrote") from error

    @classmethod
    def _from_values(cls, values: Any) -> "Record":
        if not isinstance(values, dict):
            raise ValueError("it is not an object")
        known = {entry.name for entry in fields(cls)} & values.keys()
        record = cls(
            **{name: decode_nonfinite(values[name]) if name in _WITH_NONFINITE else values[name] for name in known}
        )
        record._check()
        return record

    def _check(self) -> None:
        """Raise ValueError if values that come from a file do not have their types, or do not belong together."""
        values: dict[str, Any] = vars(self)
        for name in ("settings", "versions", "lr_curve", "mistakes"):
            if not isinstance(values[name], dict) and (values[name] is not None or name in ("settings", "versions")):
                raise ValueError(f"{name} is not an object")
        lengths = dict.fromkeys(_PER_BATCH, len(self.losses)) | dict.fromkeys(_PER_EPOCH, len(self.epochs))
        for name, length in lengths.items():
            if not isinstance(values[name], list) or len(values[name]) not in (0, length):
                raise ValueError(f"{name} is not a list of {length}")
            rows = values[name] if name == "metrics" else [values[name]]
            if not all(isinstance(row, list) for row in rows):
                raise ValueError(f"{name} is not a list of lists")
            if not all(_is_number_or_none(value) for row in rows for value in row):
                raise ValueError(f"{name} holds something else than numbers")
            if name in ("lrs", "batch_losses", "losses") and None in values[name]:
                raise ValueError(f"{name} holds something else than numbers")
        if not all(type(count) is int and count >= 0 for count in (*self.epochs, *self.nb_batches)):
            raise ValueError("epochs and nb_batches are not counts")
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in values["seconds"]):
            raise ValueError("seconds are not numbers")
        names = values["metric_names"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("metric_names is not a list of names")
        if any(len(row) != len(names) for row in self.metrics):
            raise ValueError(f"metrics does not have {len(names)} values an epoch")
        if not isinstance(values["stopped"], str | None):
            raise ValueError("stopped is not text")


class Smoother:
    """The lesson's smoothing of the training loss: `m = .98 m + .02 loss`, `smooth = m / (1 - .98^n)`."""

    def __init__(self, beta: float = SMOOTHING) -> None:
        self.beta, self.mean, self.count = beta, 0.0, 0

    def add(self, losses: Iterable[float]) -> list[float]:
        """Return the smoothed loss after each of `losses`, continuing from the last call."""
        smoothed: list[float] = []
        for loss in losses:
            self.count += 1
            self.mean = self.beta * self.mean + (1 - self.beta) * loss
            smoothed.append(self.mean / (1 - self.beta**self.count))
        return smoothed


def _is_number_or_none(value: Any) -> bool:
    return value is None or isinstance(value, float) or (type(value) is int and abs(value) < 2**63)


def format_value(value: float | None) -> str:
    """Return a number of the table with six decimals, as 1.2346e-50 if they would all be 0; "#na#" for None."""
    if value is None:
        return "#na#"
    return f"{value:.4e}" if 0 < abs(value) < _SMALLEST_FIXED else f"{value:.6f}"


def to_jsonable(value: Any) -> Any:
    """Return a NumPy or torch number or array as Python numbers; for `json.dumps(default=to_jsonable)`."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} is neither a number nor text")


def encode_nonfinite(value: Any) -> Any:
    """Return a value with infinities and NaN, however deep, as text, since strict JSON has none."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): encode_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode_nonfinite(item) for item in value]
    return value


def decode_nonfinite(value: Any) -> Any:
    """Return a value with the text that `encode_nonfinite` wrote as numbers again."""
    if isinstance(value, dict):
        return {key: decode_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode_nonfinite(item) for item in value]
    return float(value) if value in ("nan", "inf", "-inf") else value
