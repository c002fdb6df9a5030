"""Which rows of a table are trained on, which validate, and how that is said."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np

from onecycle.core.checks import check_int
from onecycle.core.device import derived_seed
from onecycle.errors import DataError, SettingError, did_you_mean
from onecycle.tables.split_column import SplitColumn, Table
from onecycle.tables.split_masks import Mask, Rows, group_mask, random_mask, stratified_mask

WAYS = ("auto", "random", "stratified")
COLUMN_WAYS = ("time", "group", "column")
_WAYS_TEXT = "auto, random, stratified, time:COLUMN, group:COLUMN or column:COLUMN"
_SPLIT = 3  # what a derived seed is for


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers, from 0: three sorted int64 arrays that share none. Only "column:" gives `test` rows."""

    train: Rows
    valid: Rows
    test: Rows = field(default_factory=lambda: np.empty(0, np.int64))


def split_rows(
    table: Table,
    how: Any = "auto",
    valid: float = 0.2,
    seed: int = 0,
    target: np.ndarray[Any, Any] | None = None,
    classes: bool = False,
) -> Split:
    """Divide the rows of a pyarrow table. `how` is one of

    - "random": `valid` of the rows, by `seed`.
    - "stratified": that share of each class of `target` (n,), whole numbers; a class with one row is trained on.
    - "auto": stratified where `classes` says that the target has classes (and one has two rows), else random.
    - "time:COLUMN": the latest rows validate; of rows of the same time, those further down.
    - "group:COLUMN": rows with the same value stay together, by `seed`, as near to the share as whole groups come.
      Missing values are a group of their own.
    - "column:COLUMN": the column says train, valid (validation, val) or test, or true or 1 for validation; `valid`
      is not used.
    - rows, as numbers or as a mask: those that validate, or a pair (train, valid), which may leave rows out.

    `valid` is a share between 0 and 1, or a whole number of rows; at least one row is on each side. Same seed, same
    split; the global generators are not touched. Raises SettingError for a way, column or share that cannot be used,
    DataError for a side without rows and for what a column or the given rows hold.
    """
    if not isinstance(how, str):
        return _given(how, table.num_rows)
    way, name = parse_split(how)
    if table.num_rows < 2:
        found = "1 row" if table.num_rows else "no rows"
        raise DataError(f"the table has {found}; expected at least 2, one of them to validate")
    column = SplitColumn(table, name, f'split "{how}"') if name is not None else None
    if column is not None and way == "column":
        return Split(*column.marked())
    count = _count(valid, table.num_rows)
    generator = np.random.default_rng(derived_seed(check_int(seed, "seed", least=0), _SPLIT))
    if column is not None:
        return _split(column.latest(count) if way == "time" else group_mask(column.groups(), count, generator))
    if way == "stratified" or (way == "auto" and classes):
        codes = _class_codes(target, table.num_rows)
        if len(codes) > codes.max() + 1:
            return _split(stratified_mask(codes, count, generator))
        if way == "stratified":
            raise DataError('split "stratified": each class has one row, so none is left to validate; use "random"')
    return _split(random_mask(table.num_rows, count, generator))


def parse_split(text: str) -> tuple[str, str | None]:
    """The way and the column that a split's text names: "time:date" is ("time", "date"), "random" ("random", None).

    Raises SettingError for an unknown way, and for a column where there should be none, or none where there should.
    """
    way, colon, column = text.partition(":")
    if way not in (*WAYS, *COLUMN_WAYS):
        near = did_you_mean(way, (*WAYS, *COLUMN_WAYS))
        raise SettingError(f'unknown split "{text}"; expected {_WAYS_TEXT}{near}')
    if way in COLUMN_WAYS and not column:
        raise SettingError(f'split "{text}" names no column; expected {way}:COLUMN')
    if way in WAYS and colon:
        raise SettingError(f'split "{text}": {way} takes no column; expected {_WAYS_TEXT}')
    return way, column or None


def excluded_feature(how: Any) -> str | None:
    """The column that must not be a feature under this split, or None.

    That is the column of "column:", which says nothing of a row, and of "group:", whose values in the validation rows
    are all unseen in training. A time stays a feature.
    """
    way, column = parse_split(how) if isinstance(how, str) else ("rows", None)
    return column if way in ("column", "group") else None


def _count(valid: Any, rows: int) -> int:
    """How many rows validate: at least one, and not all."""
    if (
        isinstance(valid, bool)
        or not isinstance(valid, Real)
        or not (isinstance(valid, Integral) or 0 < float(valid) < 1)
    ):
        raise SettingError(f"valid is {valid!r}; expected a share between 0 and 1, or a whole number of rows")
    if isinstance(valid, Integral) and not 1 <= int(valid) < rows:
        raise SettingError(f"valid is {valid}; the table has {rows} rows: expected 1 to {rows - 1} rows, or a share")
    return int(valid) if isinstance(valid, Integral) else min(max(round(float(valid) * rows), 1), rows - 1)


def _class_codes(target: np.ndarray[Any, Any] | None, rows: int) -> Rows:
    """The classes of `target`, numbered from 0."""
    if target is None or target.shape != (rows,) or target.dtype.kind not in "iub":
        found = "none" if target is None else f"{target.dtype} of shape {target.shape}"
        raise DataError(f'split "stratified" needs a target with one class a row; found {found}; use "random"')
    return np.unique(target, return_inverse=True)[1].astype(np.int64)


def _split(chosen: Mask) -> Split:
    return Split(np.flatnonzero(~chosen), np.flatnonzero(chosen))


def _given(how: Any, rows: int) -> Split:
    """The split of rows that the caller names."""
    if isinstance(how, Split):
        parts = {"train": how.train, "valid": how.valid, "test": how.test}
    elif isinstance(how, Sequence) and len(how) == 2 and all(hasattr(part, "__len__") for part in how):
        parts = {"train": how[0], "valid": how[1]}
    else:
        parts = {"valid": how}
    sides = {name: _row_numbers(part, name, rows) for name, part in parts.items()}
    if "train" not in sides:
        sides["train"] = np.setdiff1d(np.arange(rows), sides["valid"], assume_unique=True)
    for name in ("train", "valid"):
        if not len(sides[name]):
            raise DataError(f"split: no row is for {name}; expected at least one")
    every, counts = np.unique(np.concatenate(list(sides.values())), return_counts=True)
    if len(twice := every[counts > 1]):
        raise DataError(f"split: {len(twice):,} rows are on two sides (the first: row {twice[0]}); expected none")
    return Split(**sides)


def _row_numbers(part: Any, name: str, rows: int) -> Rows:
    """`part`, row numbers or a mask, as sorted row numbers."""
    try:
        array = np.asarray(part)
    except (TypeError, ValueError) as error:  # lists of different lengths, a tensor on a device
        raise SettingError(f"split: the {name} rows are no array ({error}); expected row numbers or a mask") from error
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iub"):
        found = f"{array.dtype} of shape {array.shape}" if array.ndim else repr(part)
        raise SettingError(f"split: the {name} rows are {found}; expected row numbers, a mask, or {_WAYS_TEXT}")
    if array.dtype.kind == "b":
        if len(array) != rows:
            raise DataError(f"split: the mask of {name} rows has {len(array)} values; the table has {rows} rows")
        return np.flatnonzero(array)
    numbers = np.sort(array.astype(np.int64))
    if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < rows:
        found = numbers[0] if numbers[0] < 0 else numbers[-1]
        raise DataError(f"split: {name} row {found} is not in the table, which has {rows} rows (0-{rows - 1})")
    if len(twice := numbers[1:][numbers[1:] == numbers[:-1]]):
        raise DataError(f"split: {name} row {twice[0]} is named more than once; expected each row once")
    return numbers
