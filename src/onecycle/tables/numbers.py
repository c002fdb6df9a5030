"""A column of numbers: its statistics, and what makes standardised numbers of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from onecycle.tables.values import Array, as_numbers

SAMPLE = 200_000  # values of a column that its median is computed from, at most
PIECE = 32_768  # rows worked on at a time: their numbers fit a processor's cache
_PERIOD = 99_991  # rows after which levels repeat: a prime, so that no cycle of the rows is in step with it
_LEVELS = 12


class Moments:
    """Count, mean, deviation and range of numbers that come in pieces (Chan, Golub, LeVeque 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0
        self.low, self.high = np.inf, -np.inf

    def add(self, x: Array, weights: Array | None = None) -> None:
        """Take in finite numbers; `weights` says how often each occurred, at least once."""
        if not len(x):
            return
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        count = len(x) if weights is None else int(weights.sum())
        mean = float(x.mean() if weights is None else (x * weights).sum() / count)
        away = (x - mean) ** 2
        squares = float(away.sum() if weights is None else (away * weights).sum())
        total, apart = self.count + count, mean - self.mean
        self._squares += squares + apart**2 * self.count * count / total
        self.mean += apart * count / total
        self.count = total

    @property
    def std(self) -> float:
        """The deviation from the mean, as np.std has it; 1 where all numbers are the same."""
        return float(np.sqrt(self._squares / self.count)) or 1.0 if self.count else 1.0

    @property
    def constant(self) -> bool:
        """Whether there are no two different numbers."""
        return not self.low < self.high


class Sample:
    """Up to SAMPLE of the numbers that come in pieces, all of them where there are no more.

    Which rows are taken is a function of their number alone, the same whatever the pieces: half of all rows belong to
    level 0, a quarter to level 1, …, chosen at random; when too many numbers are held, the lowest level is let go.
    """

    def __init__(self) -> None:
        self._held: dict[int, list[Array]] = {level: [] for level in range(_LEVELS)}
        self._count = 0

    def add(self, x: Array, first_row: int, present: Array | None = None) -> None:
        """Take in the numbers of the rows from `first_row` on, at most PIECE of them; `present` leaves some out."""
        offset = first_row % _PERIOD
        for level, pieces in self._held.items():
            rows = _rows_of(level)
            start, stop = rows.searchsorted((offset, offset + len(x)))
            taken = rows[start:stop] - offset
            pieces.append(x[taken] if present is None else x[taken[present[taken]]])
            self._count += len(pieces[-1])
        while self._count > SAMPLE and len(self._held) > 1:
            self._count -= sum(map(len, self._held.pop(min(self._held))))

    @property
    def median(self) -> float | None:
        """The median of the sample, None without numbers."""
        pieces = [piece for level in self._held.values() for piece in level]
        return float(np.median(np.concatenate(pieces))) if self._count else None


@cache
def _rows_of(level: int) -> Array:
    """The rows of a level among twice _PERIOD, so that a piece that begins anywhere in the first finds its own."""
    levels = np.random.default_rng(0).geometric(0.5, _PERIOD).clip(1, _LEVELS) - 1
    return np.flatnonzero(np.tile(levels, 2) == level)


LARGEST = 1e100  # numbers beyond count as this: their squares must be float64s
CLIP = 30.0  # deviations from the mean: what lies further out counts as this


class NumberStats:
    """What training rows say of a column of numbers; takes them piece by piece."""

    piece = PIECE

    def __init__(self, name: str) -> None:
        self.name, self.rows = name, 0
        self._moments, self._sample = Moments(), Sample()

    def add(self, column: Any) -> None:
        """Take in at most `piece` rows of a column. Raises DataError for what is no number."""
        x, missing = as_numbers(column, self.name, self.rows)
        present = None if missing is None else ~missing
        numbers = x if present is None else x[present]
        if len(numbers):
            if max(-numbers.min(), numbers.max()) > LARGEST:
                numbers, x = np.clip(numbers, -LARGEST, LARGEST), np.clip(x, -LARGEST, LARGEST)
            self._moments.add(numbers)
            self._sample.add(x, self.rows, present)
        self.rows += len(x)

    def finish(self) -> "FittedNumber":
        """The column's preprocessing."""
        moments, median = self._moments, self._sample.median
        fill = moments.mean if median is None else median
        return FittedNumber(self.name, moments.mean, moments.std, fill, flag=0 < moments.count < self.rows)


@dataclass(frozen=True)
class FittedNumber:
    """Standardises a column: (x - mean) / std, within ±CLIP; a missing value is taken for `fill`.

    `flag`: some were missing in training, so a column of the matrix says which are.
    """

    piece: ClassVar = PIECE
    name: str
    mean: float
    std: float
    fill: float
    flag: bool

    def write(self, column: Any, first_row: int, out: Sequence[Array]) -> None:
        """Write a piece of the column to out[0], and with `flag` where it is missing to out[1]."""
        x, missing = as_numbers(column, self.name, first_row)
        standardise(x, self.mean, self.std, out[0])
        if missing is not None:
            out[0][missing] = standardise(np.array([self.fill]), self.mean, self.std)[0]
        if self.flag:
            out[1][:] = 0 if missing is None else missing


def standardise(x: Array, mean: float, std: float, out: Array | None = None) -> Array:
    """(x - mean) / std within ±CLIP, computed in float64, as float32; into `out` where it is given."""
    out = np.empty(len(x), np.float32) if out is None else out
    with np.errstate(all="ignore"):  # infinity is clipped, NaN replaced by the caller
        z = x - mean
        z /= std
    out[:] = np.clip(z, -CLIP, CLIP, out=z)
    return out
