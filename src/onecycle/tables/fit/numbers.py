"""A column of numbers: its statistics, and what makes standardised numbers of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onecycle.tables.fit.moments import PIECE, Moments, Sample
from onecycle.tables.fit.values import Array, as_numbers

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
