"""Statistics of a column that is to be predicted, and its values checked."""

from typing import Any

import numpy as np

from onecycle.core.errors import DataError
from onecycle.tables.fit.categories import ValueCounts
from onecycle.tables.fit.moments import PIECE, Moments
from onecycle.tables.fit.numbers import LARGEST
from onecycle.tables.fit.values import Array, arrow, as_numbers, encoded, plain, plain_type, value_texts

FEW = 20  # different whole numbers that are taken for classes, at most


class TargetStats:
    """What is known of a target's column that comes piece by piece.

    `way` is how it is read: "numbers", "values" (classes) or "lists" (of labels). Of numbers, `few` are the different
    ones, None where there are more than FEW or some are not whole, and `moments` has mean and deviation. Of values and
    labels, `counts` says how often each occurs.
    """

    def __init__(self, name: str, held: Any, way: str) -> None:
        self.name, self.way, self.rows = name, way, 0
        self.piece = PIECE if way == "numbers" else ValueCounts.piece
        self.moments, self.counts = Moments(), ValueCounts(name)
        self.few: set[int | float] | None = set()
        self._whole_type = arrow()[0].types.is_integer(plain_type(held))
        self._missing, self._first_missing = 0, 0

    def add(self, column: Any) -> None:
        """Take in at most `piece` rows. Raises DataError for infinity, and for text where numbers are read."""
        if self.way == "numbers":
            absent = self._add_numbers(column)
        elif self.way == "lists":
            absent = column.is_null().to_numpy()
            self.counts.add(labels_of(column, self.name, self.rows)[0])
        else:
            before = self.counts.missing
            self.counts.add(column)
            absent = missing_values(column) if self.counts.missing > before else None
        if absent is not None and absent.any():
            self._first_missing = self._first_missing if self._missing else self.rows + int(absent.argmax())
            self._missing += int(absent.sum())
        self.rows += len(column)

    def check_present(self) -> None:
        """Raises DataError where rows have no value."""
        if self._missing:
            raise _missing_error(self.name, self._missing, self.rows, self._first_missing, "")

    def _add_numbers(self, column: Any) -> Array | None:
        x, absent = finite_numbers(column, self.name, self.rows)
        x = x if absent is None else x[~absent]
        self.moments.add(x)
        if self.few is not None and len(x):
            different = np.unique(plain(column).drop_null().to_numpy() if self._whole_type else x)
            whole = len(different) <= FEW and bool((different == np.floor(different)).all())
            self.few = self.few | {int(number) for number in different} if whole else None
            self.few = self.few if self.few is not None and len(self.few) <= FEW else None
        return absent


def finite_numbers(column: Any, name: str, first_row: int) -> tuple[Array, Array | None]:
    """float64 of a target's column, and where it is missing (None: nowhere).

    Raises DataError, with the row, for infinity, for numbers beyond ±1e100 and for text that is no number.
    """
    x, bad = as_numbers(column, name, first_row)
    absent = None if bad is None else np.isnan(x)
    with np.errstate(invalid="ignore"):
        large = np.abs(x) > LARGEST
    if large.any():
        row = int(large.argmax())
        raise DataError(
            f'row {first_row + row}: target "{name}" is {x[row]} ({int(large.sum())} such values); expected finite '
            f"numbers within ±{LARGEST:g}: correct or drop these rows"
        )
    return x, absent


def missing_values(column: Any) -> Array:
    """Where a column of categories has no value: null, NaN or a blank text."""
    found = [np.empty(0, bool)]
    for values, places in encoded(column):
        absent = value_texts(values).is_null().to_numpy(zero_copy_only=False)
        found.append(np.append(absent, True)[places])  # a null's place, -1, is the last
    return np.concatenate(found)


def check_present(name: str, absent: Array | None, first_row: int, part: str) -> None:
    """Raises DataError where `absent` says that a target is missing; `part` is what the rows are called."""
    if absent is not None and absent.any():
        raise _missing_error(name, int(absent.sum()), len(absent), first_row + int(absent.argmax()), f"{part} ")


def check_zero_or_one(x: Array, name: str, first_row: int) -> None:
    """Raises DataError where a multilabel target is another number than 0 and 1."""
    wrong = (x != 0) & (x != 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f'row {first_row + row}: target "{name}" is {x[row]:g}; expected 0 or 1, as of each label')


def _missing_error(name: str, missing: int, rows: int, first: int, part: str) -> DataError:
    return DataError(
        f'target "{name}" is missing in {missing:,} of {rows:,} {part}rows, first in row {first}, counted from 0; '
        "expected a value in each: drop the rows without one"
    )


def labels_of(column: Any, name: str, first_row: int) -> tuple[Any, Array]:
    """The labels in a column of lists, one after the other, and the row of each. Raises DataError for a null one."""
    _, pc = arrow()
    column = plain(column).combine_chunks()
    labels, rows = pc.list_flatten(column), pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
    labels = arrow()[0].chunked_array([labels])
    absent = missing_values(labels)
    if absent.any():
        row = first_row + int(rows[absent.argmax()])
        raise DataError(
            f'row {row}: target "{name}" has a label without a value; expected text or numbers in each list'
        )
    return labels, rows
