"""Columns of numbers: their statistics, and the encoder that standardises them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from onecycle.errors import warn_user
from onecycle.tables.json_reader import JsonReader
from onecycle.tables.values import Array, as_numbers

CHUNK_ROWS = 32_768  # rows worked on at a time: their numbers fit into a processor's cache
LARGEST = 1e100  # numbers beyond are clipped to this: their squares must be float64s
_SMALLEST = 1e-150  # range of a column whose squares are float64s
_COARSEST = 0.25  # distance of two float64s, in standard deviations of a column
CLIP = 30.0  # standard deviations; standardised numbers beyond are clipped to this
_SAMPLE = 200_000  # values of a column that its median is computed from, at most
_PERIOD = 99_991  # rows after which the levels repeat: a prime, so that no cycle in the rows is in step with it
_LEVELS = 12


class Moments:
    """Count, mean, standard deviation and range of numbers that come in chunks (Chan, Golub, LeVeque 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0
        self.low, self.high = np.inf, -np.inf

    def add(self, x: Array, weights: Array | None = None) -> None:
        """Add finite numbers; `weights` says how often each occurred, at least once."""
        if not len(x):
            return
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        count = len(x) if weights is None else int(weights.sum())
        mean = float(x.mean() if weights is None else (x * weights).sum() / count)
        deviations = (x - mean) ** 2
        squares = float(deviations.sum() if weights is None else (deviations * weights).sum())
        total, shift = self.count + count, mean - self.mean
        self._squares += squares + shift**2 * self.count * count / total
        self.mean += shift * count / total
        self.count = total

    @property
    def std(self) -> float:
        """The standard deviation, as np.std computes it; 1 if all numbers are the same."""
        return float(np.sqrt(self._squares / self.count)) or 1.0 if self.count else 1.0

    @property
    def constant(self) -> bool:
        """Whether there are no two different numbers."""
        return not self.low < self.high


class Sample:
    """A random sample of at most 200,000 of the numbers that come in chunks; all of them if there are no more.

    Which rows are sampled depends on their row numbers alone, not on the chunks: a random half of all rows belongs to
    level 0, a quarter to level 1, and so on; when there are too many numbers, the lowest level is discarded.
    """

    def __init__(self) -> None:
        self._levels: dict[int, list[Array]] = {level: [] for level in range(_LEVELS)}
        self._count = 0

    def add(self, x: Array, first_row: int, present: Array | None = None) -> None:
        """Add the numbers of the rows from `first_row` on, at most CHUNK_ROWS, without those that are not `present`."""
        offset = first_row % _PERIOD
        for level, chunks in self._levels.items():
            level_rows = _rows_of_level(level)
            start, stop = level_rows.searchsorted((offset, offset + len(x)))
            rows = level_rows[start:stop] - offset
            chunks.append(x[rows] if present is None else x[rows[present[rows]]])
            self._count += len(chunks[-1])
        while self._count > _SAMPLE and len(self._levels) > 1:
            self._count -= sum(map(len, self._levels.pop(min(self._levels))))

    @property
    def median(self) -> float | None:
        """The median of the sample; None without numbers."""
        chunks = [chunk for level in self._levels.values() for chunk in level]
        return float(np.median(np.concatenate(chunks))) if self._count else None


@cache
def _rows_of_level(level: int) -> Array:
    """Return the rows of a level among two periods, so that a chunk that begins anywhere in the first finds its own."""
    levels = np.random.default_rng(0).geometric(0.5, _PERIOD).clip(1, _LEVELS) - 1
    return np.flatnonzero(np.tile(levels, 2) == level)


class NumberStats:
    """Collects the statistics of a column of numbers over the training rows."""

    chunk_rows = CHUNK_ROWS

    def __init__(self, name: str) -> None:
        self.name, self.rows = name, 0
        self._moments, self._sample, self._beyond = Moments(), Sample(), 0

    def add(self, column: Any) -> None:
        """Add at most `chunk_rows` rows of the column. Raises DataError for a cell that is not a number."""
        x, missing = as_numbers(column, self.name, self.rows)
        present = None if missing is None else ~missing
        numbers = x if present is None else x[present]
        if len(numbers):
            if max(-numbers.min(), numbers.max()) > LARGEST:
                self._beyond += int((np.abs(numbers) > LARGEST).sum())
                numbers, x = np.clip(numbers, -LARGEST, LARGEST), np.clip(x, -LARGEST, LARGEST)
            self._moments.add(numbers)
            self._sample.add(x, self.rows, present)
        self.rows += len(x)

    def finish(self) -> "NumberEncoder":
        """Return the encoder with these statistics. Warns if the column's numbers lose what tells them apart."""
        moments, median = self._moments, self._sample.median
        fill = moments.mean if median is None else median
        std, spread = moments.std, moments.high - moments.low
        if 0 < spread < _SMALLEST:  # whose square is no float64
            std = spread / 4 or spread
        if self._beyond:
            warn_user(
                f'column "{self.name}": {self._beyond:,} of {self.rows:,} numbers are beyond ±{LARGEST:g}, and count '
                "as that; divide the column first",
            )
        if spread > 0 and np.spacing(max(-moments.low, moments.high)) > std * _COARSEST:
            warn_user(
                f'column "{self.name}" is from {moments.low:.17g} to {moments.high:.17g}: float64 hardly tells its '
                "numbers apart; subtract what all have in common first, or drop the column",
            )
        return NumberEncoder(self.name, moments.mean, std, fill, flag=0 < moments.count < self.rows)


@dataclass(frozen=True)
class NumberEncoder:
    """Standardises a column: (x - mean) / std, clipped to ±CLIP.

    Attributes:
        name: Name of the column.
        mean: Mean of the training rows.
        std: Standard deviation of the training rows.
        fill: The number that stands for a missing one: the training rows' median.
        flag: Whether training rows had missing values; then a second column of the matrix marks them.
    """

    chunk_rows: ClassVar = CHUNK_ROWS
    name: str
    mean: float
    std: float
    fill: float
    flag: bool

    def write(self, column: Any, first_row: int, out: Sequence[Array]) -> None:
        """Write a chunk of the column to out[0], and with `flag` which rows are missing to out[1]."""
        x, missing = as_numbers(column, self.name, first_row)
        standardise(x, self.mean, self.std, out[0])
        if missing is not None:
            out[0][missing] = standardise(np.array([self.fill]), self.mean, self.std)[0]
        if self.flag:
            out[1][:] = 0 if missing is None else missing

    def to_dict(self) -> dict[str, Any]:
        """Return the encoder as plain JSON."""
        return {"kind": "number", **asdict(self)}

    @classmethod
    def from_dict(cls, entry: JsonReader) -> "NumberEncoder":
        """Return the encoder that `to_dict` wrote. Raises DataError for anything else."""
        name, flag = entry.text("name"), entry.flag("flag")
        return cls(name, entry.number("mean"), entry.number("std", above=0), entry.number("fill"), flag)


def standardise(x: Array, mean: float, std: float, out: Array | None = None) -> Array:
    """Return (x - mean) / std within ±CLIP, computed in float64, as float32; in `out` if that is given."""
    out = np.empty(len(x), np.float32) if out is None else out
    with np.errstate(all="ignore"):  # infinity is clipped, NaN replaced by the caller
        z = x - mean
        z /= std
    out[:] = np.clip(z, -CLIP, CLIP, out=z)
    return out
