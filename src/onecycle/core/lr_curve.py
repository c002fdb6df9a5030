"""The curve of the LR finder, and the learning rate that it suggests.

At its smallest learning rates a range test changes nothing: there the losses of the batches differ by chance alone. So
its first quarter says how high the loss is to begin with, and how much it varies. The curve says something if the loss
later falls by more than that explains. What falls less is noise, and a rate read off it would train nothing.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from onecycle.core.record import SMOOTHING
from onecycle.errors import warn_user

DEFAULT_RATE = 3e-3  # that of `fit` and `fit_one_cycle`
_MIN_POINTS = 10
_MIN_FLAT = 5  # points of the first quarter
_DEVIATIONS = 4.0  # by which the loss falls; noise alone does that in about 1 of 100 range tests
_Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


class Suggestion(float):
    """A learning rate to train with, and the reason for it.

    Attributes:
        why: The rule that gave it, or what the curve lacks.
        is_certain: Whether the curve says it; otherwise it is the default of `fit_one_cycle`.
    """

    why: str
    is_certain: bool

    def __new__(cls, lr: float, why: str, is_certain: bool = True) -> "Suggestion":
        """Make the number, with its reason."""
        suggestion = super().__new__(cls, lr)
        suggestion.why, suggestion.is_certain = why, is_certain
        return suggestion

    def __reduce__(self) -> tuple[type["Suggestion"], tuple[float, str, bool]]:
        return type(self), (float(self), self.why, self.is_certain)


@dataclass(frozen=True, repr=False)
class LRCurve:
    """The smoothed loss at each learning rate that the LR finder tried.

    Attributes:
        lrs: Learning rates.
        losses: Smoothed training losses.
    """

    lrs: list[float]
    losses: list[float]

    def __repr__(self) -> str:
        suggestions = ", ".join(f"{name} {lr:.2e}" for name, lr in self.suggestions().items())
        return f"{type(self).__name__}({len(self.lrs)} learning rates; {suggestions or self.choice.why})"

    @cached_property
    def suggestion(self) -> Suggestion:
        """The learning rate to train with, and `why`: the valley of `suggestions()`, or a default.

        Where the curve says nothing it is 3e-3, the default of `fit_one_cycle`, and a warning says why.
        """
        if not self.choice.is_certain:
            warn_user(f"lr_find: {self.choice.why}; look at plot(), or give a learning rate of your own")
        return self.choice

    @cached_property
    def choice(self) -> Suggestion:
        """The same as `suggestion`, without a warning."""
        if valley := self.suggestions().get("valley"):
            return Suggestion(valley, "valley: where the loss is half way down from its highest point to its lowest")
        why = "the loss does not fall by more than it varies from batch to batch"
        if len(self._finite()) < _MIN_POINTS:
            why = f"{len(self._finite())} learning rates with a finite loss are too few to suggest one"
        return Suggestion(DEFAULT_RATE, f"{why}; {DEFAULT_RATE:g} is the default", is_certain=False)

    def suggestions(self) -> dict[str, float]:
        """Return learning rates worth trying, by name.

        - `valley`: the first from which on the loss is at most half way down from its highest point to its lowest.
        - `steep`: the one at which the loss falls fastest over log lr.
        - `minimum`: a tenth of the one at which the loss is lowest.

        Returns:
            The learning rates; empty if the curve has too few points, or says nothing.
        """
        losses = self._finite()
        lrs, flat = np.array(self.lrs[: len(losses)]), max(_MIN_FLAT, len(losses) // 4)
        if len(losses) < _MIN_POINTS:
            return {}
        average, deviations = _fall(_unsmoothed(losses), flat)
        if deviations < _DEVIATIONS:
            return {}
        if losses[flat:].argmin() == 0:  # smoothing hides it
            losses = average
        bottom = flat + int(losses[flat:].argmin())
        falling = slice(flat, bottom + 1)
        level = (losses[falling].max() + losses[bottom]) / 2
        # the last crossing: noise makes dips before it
        valley = flat + int(np.flatnonzero(losses[falling] > level)[-1]) + 1
        slope = np.gradient(losses[falling], np.log(lrs[falling]))
        return {
            "valley": float(lrs[valley]),
            "steep": float(lrs[falling][slope.argmin()]),
            "minimum": float(lrs[bottom] / 10),
        }

    def _finite(self) -> _Array:
        """Return the losses up to the first that is not finite, after which they say nothing."""
        losses = np.array(self.losses, dtype=np.float64)
        finite = np.isfinite(losses)
        return losses if finite.all() else losses[: finite.argmin()]


def _unsmoothed(losses: _Array) -> _Array:
    """Return the batches' losses, of which these are the smoothed ones."""
    weights = 1 - SMOOTHING ** np.arange(1, len(losses) + 1)
    means = losses * weights
    return np.diff(means, prepend=0.0) / (1 - SMOOTHING) + np.concatenate([[0.0], means[:-1]])


def _fall(losses: _Array, flat: int) -> tuple[_Array, float]:
    """Return moving averages, and by how many of its standard deviations the lowest is below that of the first points.

    The deviation of a batch's loss is taken from differences of neighbours, so that a trend does not count.
    """
    width = max(3, len(losses) // 9) | 1  # odd, so that an average has a middle
    average = np.convolve(np.pad(losses, width // 2, mode="edge"), np.full(width, 1 / width), "valid")
    lowest = flat + int(average[flat:].argmin())
    deviation = np.diff(losses[: lowest + 1]).std() / np.sqrt(2) * np.sqrt(1 / width + 1 / flat)
    fall = losses[:flat].mean() - average[lowest]
    return average, float(fall / max(deviation, np.finfo(np.float64).tiny))
