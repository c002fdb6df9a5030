"""The record of a run: plain numbers that plots, tables and reports read, and that go to JSON and back."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from onecycle.core.files import verify_checksum, with_checksum, write_text
from onecycle.errors import FileError, SettingError


@dataclass
class Record:
    """What happened in one fit.

    The first five lists have an entry for each batch trained on, the next five one for each epoch.
    """

    lrs: list[float] = field(default_factory=list[float])  # of the last layer group, as the step used it
    moms: list[float | None] = field(default_factory=list[float | None])  # None where the optimizer has no momentum
    batch_losses: list[float] = field(default_factory=list[float])  # as the loss function gave them
    losses: list[float] = field(default_factory=list[float])  # smoothed, see `Smoother`
    nb_batches: list[int] = field(default_factory=list[int])  # trained on in each epoch
    epochs: list[int] = field(default_factory=list[int])  # numbered from 0 in each fit
    val_losses: list[float | None] = field(default_factory=list[float | None])
    metrics: list[list[float | None]] = field(default_factory=list[list[float | None]])
    seconds: list[float] = field(default_factory=list[float])
    metric_names: list[str] = field(default_factory=list[str])
    stopped: str | None = None  # why the fit ended before its last epoch; None where it did not
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    versions: dict[str, str] = field(default_factory=dict[str, str])  # of Python, the libraries and the device
    lr_curve: dict[str, Any] | None = None  # the finder's `lrs` and `losses`, and the `suggestion` that was taken
    mistakes: dict[str, Any] | None = None  # what `show/interpret.py` says of the validation set

    @property
    def column_names(self) -> list[str]:
        """The names of the table's columns."""
        return ["epoch", "train_loss", "valid_loss", *self.metric_names, "time"]

    def row(self, index: int = -1) -> list[str]:
        """The table's row for one epoch, as text: losses and metrics `.6f`, `#na#` for none, time MM:SS.

        A negative `index` counts from the last epoch. Raises SettingError where there is no such epoch.
        """
        epochs = range(len(self.epochs))
        if not -len(epochs) <= index < len(epochs):
            raise SettingError(f"there is no row {index}; the record has {len(epochs)} epochs")
        index = epochs[index]
        batches = sum(self.nb_batches[: index + 1])
        train_loss = self.losses[batches - 1] if 0 < batches <= len(self.losses) else None
        values = [train_loss, self.val_losses[index] if self.val_losses else None]
        values += self.metrics[index] if self.metrics else []
        minutes, seconds = divmod(round(self.seconds[index]) if self.seconds else 0, 60)
        return [str(self.epochs[index]), *map(format_value, values), f"{minutes:02d}:{seconds:02d}"]

    def rows(self) -> list[list[str]]:
        """The table: a row for each epoch."""
        return [self.row(index) for index in range(len(self.epochs))]

    def to_json(self) -> str:
        """The record as strict JSON; NaN and infinities become the strings "nan", "inf" and "-inf"."""
        return json.dumps(encode_nonfinite(asdict(self)), indent=1, allow_nan=False, default=to_jsonable)

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """The record that `to_json` wrote; keys it does not know are left out."""
        return cls._of(json.loads(text))

    @classmethod
    def _of(cls, found: Any) -> "Record":
        if not isinstance(found, dict):
            raise ValueError("it is not an object")
        known = {name.name for name in fields(cls)}
        decoded = {
            key: decode_nonfinite(value) if key in _NUMBERS else value for key, value in found.items() if key in known
        }
        record = cls(**decoded)
        record._check()
        return record

    def _check(self) -> None:
        """Raises ValueError where the fields do not belong together."""
        for name in ("settings", "versions"):
            if not isinstance(getattr(self, name), dict):
                raise ValueError(f"{name} is not an object")
        for name in ("lr_curve", "mistakes"):
            if not isinstance(getattr(self, name), dict | None):
                raise ValueError(f"{name} is not an object")
        for names, length in (
            (("lrs", "moms", "batch_losses", "losses"), len(self.losses)),
            (("epochs", "nb_batches", "val_losses", "metrics", "seconds"), len(self.epochs)),
        ):
            for name in names:
                values = getattr(self, name)
                if not isinstance(values, list) or len(values) not in (0, length):
                    raise ValueError(f"{name} is not a list of {length}")
                rows = values if name == "metrics" else [values]
                if not all(isinstance(row, list) for row in rows):
                    raise ValueError(f"{name} is not a list of lists")
                if not all(_is_number(value) for row in rows for value in row):
                    raise ValueError(f"{name} holds something else than numbers")
        if not all(type(count) is int and count >= 0 for count in (*self.epochs, *self.nb_batches)):
            raise ValueError("epochs and nb_batches are not counts")
        found: dict[str, Any] = vars(self)  # of any type, for it may come from a file
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in found["seconds"]):
            raise ValueError("seconds are not numbers")
        if not (
            isinstance(found["metric_names"], list) and all(isinstance(name, str) for name in found["metric_names"])
        ):
            raise ValueError("metric_names is not a list of names")
        if not isinstance(found["stopped"], str | None):
            raise ValueError("stopped is not text")

    def save(self, path: str | Path) -> None:
        """Write the record to `path` as JSON with its SHA-256, whole or not at all."""
        write_text(Path(path), with_checksum(json.loads(self.to_json())))

    @classmethod
    def load(cls, path: str | Path) -> "Record":
        """Read a record that `save` wrote. Raises FileError where `path` is missing, damaged or no record."""
        try:
            return cls._of(verify_checksum(Path(path).read_bytes().decode()))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise FileError(f"{path}: not a readable record ({error}); expected JSON that onecycle wrote") from error


class Smoother:
    """The lesson's smoothing of the training loss: `m = .98 m + .02 loss`, `smooth = m / (1 - .98^n)`."""

    def __init__(self, beta: float = 0.98) -> None:
        self.beta, self.mean, self.count = beta, 0.0, 0

    def add(self, losses: Iterable[float]) -> list[float]:
        """The smoothed loss after each of `losses`, carrying on from where the last call ended."""
        smoothed: list[float] = []
        for loss in losses:
            self.count += 1
            self.mean = self.beta * self.mean + (1 - self.beta) * loss
            smoothed.append(self.mean / (1 - self.beta**self.count))
        return smoothed


@dataclass(frozen=True, repr=False)
class LRCurve:
    """What the learning-rate finder saw: the smoothed loss at each learning rate."""

    lrs: list[float]
    losses: list[float]

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {value:.2e}" for name, value in self.suggestions().items())
        return f"{type(self).__name__}({len(self.lrs)} learning rates; {found or 'no suggestion'})"

    def suggestions(self) -> dict[str, float]:
        """Learning rates worth trying, by name. Empty where there are too few points to tell.

        - `valley`: from where on the loss is half way down from its highest point to its lowest after that.
        - `steep`: where the loss falls fastest over log lr.
        - `minimum`: a tenth of the learning rate where the loss is lowest.
        """
        lrs, losses = np.array(self.lrs), np.array(self.losses)
        usable = np.isfinite(losses)
        usable[:MIN_SKIPPED] = False  # the first smoothed losses are too noisy to rank
        lrs, losses = lrs[usable], losses[usable]
        if len(losses) < MIN_POINTS or losses.argmin() == 0:
            return {}  # too short to tell, or the loss only rises
        slope = np.gradient(losses, np.log(lrs))
        return {
            "valley": float(lrs[_valley(losses)]),
            "steep": float(lrs[slope.argmin()]),
            "minimum": float(lrs[losses.argmin()] / 10),
        }


MIN_SKIPPED = 5
MIN_POINTS = 5


def _valley(losses: np.ndarray[Any, np.dtype[np.float64]]) -> int:
    """The index from where the losses stay at most half way down from the highest point before the lowest."""
    bottom = int(losses.argmin())
    top = int(losses[:bottom].argmax())
    level = (losses[top] + losses[bottom]) / 2
    return int(np.flatnonzero(losses[:bottom] > level)[-1]) + 1  # a dip on the way, which noise makes, is no valley


def _is_number(value: Any) -> bool:
    """A number of the record, or none; whole ones of a size that a float has."""
    return value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def format_value(value: float | None) -> str:
    """A number of the table: six decimals, `#na#` for none."""
    return "#na#" if value is None else f"{value:.6f}"


def to_jsonable(value: Any) -> Any:
    """NumPy and torch numbers and arrays as what JSON has; for `json.dumps(default=plain)`."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} is neither a number nor text")


_NUMBERS = ("lrs", "moms", "batch_losses", "losses", "val_losses", "metrics", "seconds", "settings", "lr_curve")


def encode_nonfinite(value: Any) -> Any:
    """Infinities and NaN as text, which strict JSON has."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): encode_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode_nonfinite(item) for item in value]
    return value


def decode_nonfinite(value: Any) -> Any:
    """The same with that text as numbers again."""
    if isinstance(value, dict):
        return {key: decode_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [decode_nonfinite(item) for item in value]
    return float(value) if value in ("nan", "inf", "-inf") else value
