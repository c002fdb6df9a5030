"""Split a table's rows into training, validation and test rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, TypeAlias

import numpy as np

from onecycle.core.checks import check_int
from onecycle.core.device import derived_seed
from onecycle.errors import DataError, SettingError, did_you_mean, pluralize
from onecycle.tables.dates import as_days
from onecycle.tables.spec import SPLIT_SYNTAX, TableSpec, column_hint, parse_split
from onecycle.tables.values import decode_column, import_pyarrow, value_kind

Rows: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

SPLIT_MARKS = {  # what a column of "column:" may say: the place in (train, valid, test)
    **dict.fromkeys(("train", "false", "0"), 0),
    **dict.fromkeys(("valid", "validation", "val", "true", "1"), 1),
    "test": 2,
}
SPLIT_SEED = 3  # what a derived seed is for
MAX_SEARCH = 2**27  # operations that `nearest_sum` may take
SEARCHED_TAIL = 10_000  # rows of its sum that it looks for if all would take longer


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of a table: three sorted int64 arrays without a common element.

    Attributes:
        train: Rows to train on.
        valid: Rows to validate on.
        test: Rows to test on. Of the splits by name, only "column:" has any.
    """

    train: Rows
    valid: Rows
    test: Rows = field(default_factory=lambda: np.empty(0, np.int64))


def split_rows(table: Any, spec: TableSpec, class_codes: Rows | None = None) -> Split:
    """Split the rows of a pyarrow Table as `spec.split` says.

    - "random": `spec.valid` of the rows, by `spec.seed`.
    - "stratified": that share of each class; a class with one row is trained on.
    - "auto": stratified if there are `class_codes` and one class has two rows, else random.
    - "time:COLUMN": the latest rows validate; of rows of the same time, those further down.
    - "group:COLUMN": rows with the same value stay together, by `spec.seed`, as near to the share as whole groups come.
      Missing values are a group of their own.
    - "column:COLUMN": the column says train, valid (validation, val) or test, or true or 1 for validation; `spec.valid`
      is not used.
    - row numbers or a mask: the rows that validate, or a pair (train, valid), which may leave rows out.

    The same seed returns the same split; global generators are not touched. Training and validation get at least one
    row each.

    Args:
        table: A pyarrow Table.
        spec: Its `split`, `valid` (a share between 0 and 1, or a whole number of rows) and `seed` are used.
        class_codes: Class of each row as a whole number, (n,); None if the target is not classes.

    Returns:
        The rows of each set.

    Raises:
        SettingError: For an unknown split or column, and for a share or seed that cannot be used.
        DataError: For a set without rows, and for values of the column or row numbers that cannot be used.
    """
    split, rows = spec.split, table.num_rows
    if not isinstance(split, str):
        return _explicit_split(split, rows)
    method, name = parse_split(split)
    if rows < 2:
        raise DataError(f"the table has {'1 row' if rows else 'no rows'}; expected at least 2, one of them to validate")
    column = _SplitColumn(table, name, f'split "{split}"') if name is not None else None
    if column is not None and method == "column":
        return Split(*column.marked_rows())
    count = _validation_rows(spec.valid, rows)
    generator = np.random.default_rng(derived_seed(check_int(spec.seed, "seed", least=0), SPLIT_SEED))
    if column is not None:
        mask = column.latest(count) if method == "time" else group_mask(column.group_codes(), count, generator)
    elif method == "stratified" or (method == "auto" and class_codes is not None):
        if class_codes is None:
            raise DataError('split "stratified" needs a target that is classes; use "random"')
        codes = np.unique(class_codes, return_inverse=True)[1]  # without gaps
        one_row_each = len(codes) == codes.max() + 1
        if one_row_each and method == "stratified":
            raise DataError('split "stratified": each class has one row, so none is left to validate; use "random"')
        mask = random_mask(rows, count, generator) if one_row_each else stratified_mask(codes, count, generator)
    else:
        mask = random_mask(rows, count, generator)
    return Split(np.flatnonzero(~mask), np.flatnonzero(mask))


def _validation_rows(valid: Any, rows: int) -> int:
    """Return how many rows validate: at least one, and not all."""
    is_count = isinstance(valid, Integral)
    if isinstance(valid, bool) or not isinstance(valid, Real) or not (is_count or 0 < float(valid) < 1):
        raise SettingError(f"valid is {valid!r}; expected a share between 0 and 1, or a whole number of rows")
    if is_count and not 1 <= int(valid) < rows:
        raise SettingError(f"valid is {valid}; the table has {rows} rows: expected 1 to {rows - 1} rows, or a share")
    return int(valid) if is_count else min(max(round(float(valid) * rows), 1), rows - 1)


class _SplitColumn:
    """The column that a split is made by; `label` begins its error messages."""

    def __init__(self, table: Any, name: str, split_label: str) -> None:
        columns: list[str] = table.column_names
        if name not in columns:
            raise SettingError(f'{split_label}: the table has no column "{name}"{column_hint(name, columns)}')
        self.name, self.values = name, decode_column(table.column(name))
        self.label = f'{split_label}: column "{name}"'

    def latest(self, count: int) -> Mask:
        """Mark the `count` rows with the highest values: dates, times, numbers, or text of ISO 8601 dates.

        Of rows with equal values, those further down count as later. Raises DataError for a missing value, and for
        values that have no order in time.
        """
        pa, pc = import_pyarrow()
        if value_kind(self.values.type) == "text":
            days, seconds, missing = as_days(self.values, self.name, first_row=0, lenient=False)
            order = np.lexsort((seconds, days))
        else:
            try:
                order = pc.sort_indices(self.values).to_numpy()
            except pa.ArrowException as error:
                raise DataError(f"{self.label} holds {self.values.type}; expected dates, times or numbers") from error
            missing = pc.is_null(self.values, nan_is_null=True).to_numpy()
        if missing is not None and (n_missing := int(missing.sum())):
            raise DataError(
                f"{self.label} is missing in {pluralize(n_missing, 'row')} (the first: row {missing.argmax()}); "
                "expected a time in each: fill them, or drop these rows"
            )
        latest = np.zeros(len(order), np.bool_)
        latest[order[len(order) - count :]] = True
        return latest

    def group_codes(self) -> Rows:
        """Return the number of each row's group."""
        codes, values = self._distinct()
        if len(values) < 2:
            raise DataError(f"{self.label} is {values[0]!r} in every row; expected at least two groups")
        return codes

    def marked_rows(self) -> list[Rows]:
        """Return the rows that are marked as training, validation and test."""
        codes, values = self._distinct()
        places: list[int] = []
        for code, value in enumerate(values):
            text = str(value).strip().lower().removesuffix(".0")
            if text not in SPLIT_MARKS:
                near = did_you_mean(text, [mark for mark in SPLIT_MARKS if mark.isalpha()])
                raise DataError(
                    f"{self.label} is {'missing' if value is None else repr(value)} in row {(codes == code).argmax()}; "
                    f"expected train, valid or test, or true or 1 for validation{near}"
                )
            places.append(SPLIT_MARKS[text])
        place_of_row = np.array(places, np.int64)[codes]
        rows = [np.flatnonzero(place_of_row == place) for place in range(3)]
        for place, purpose, marks in ((0, "training", "train, false or 0"), (1, "validation", "valid, true or 1")):
            if not len(rows[place]):
                raise DataError(f"{self.label} has no row for {purpose}; expected at least one ({marks})")
        return rows

    def _distinct(self) -> tuple[Rows, list[Any]]:
        """Return the code of each row's value, and the values in order of appearance, with None for missing."""
        pa, _ = import_pyarrow()
        try:
            chunks = self.values.dictionary_encode(null_encoding="encode").chunks  # which share their dictionary
        except pa.ArrowException as error:
            raise DataError(f"{self.label} holds {self.values.type}; expected text or whole numbers") from error
        codes = [chunk.indices.to_numpy() for chunk in chunks]
        return np.concatenate(codes, dtype=np.int64), chunks[0].dictionary.to_pylist()


def _explicit_split(split: Any, rows: int) -> Split:
    """Return the split of rows that the caller lists."""
    if isinstance(split, Split):
        listed = {"train": split.train, "valid": split.valid, "test": split.test}
    elif isinstance(split, Sequence) and len(split) == 2 and all(hasattr(side, "__len__") for side in split):
        listed = {"train": split[0], "valid": split[1]}
    else:
        listed = {"valid": split}
    numbers = {name: _row_numbers(listed_rows, name, rows) for name, listed_rows in listed.items()}
    if "train" not in numbers:
        numbers["train"] = np.setdiff1d(np.arange(rows), numbers["valid"], assume_unique=True)
    for name in ("train", "valid"):
        if not len(numbers[name]):
            raise DataError(f"split: no row is for {name}; expected at least one")
    every, counts = np.unique(np.concatenate(list(numbers.values())), return_counts=True)
    if len(repeated := every[counts > 1]):
        shared = pluralize(len(repeated), "row")
        raise DataError(f"split: {shared} in two sets (the first: row {repeated[0]}); expected each row in one")
    return Split(**numbers)


def _row_numbers(listed: Any, name: str, rows: int) -> Rows:
    """Return row numbers or a mask as sorted row numbers."""
    try:
        array = np.asarray(listed)
    except (TypeError, ValueError) as error:  # lists of different lengths, a tensor on a device
        raise SettingError(
            f"split: the {name} rows are not an array ({error}); expected row numbers or a mask"
        ) from error
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iub"):
        found = f"{array.dtype} of shape {array.shape}" if array.ndim else repr(listed)
        raise SettingError(f"split: the {name} rows are {found}; expected row numbers, a mask, or {SPLIT_SYNTAX}")
    if array.dtype.kind == "b":
        if len(array) != rows:
            raise DataError(f"split: the mask of {name} rows has {len(array)} values; the table has {rows} rows")
        return np.flatnonzero(array)
    numbers = np.sort(array.astype(np.int64))
    if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < rows:
        outside = numbers[0] if numbers[0] < 0 else numbers[-1]
        raise DataError(f"split: {name} row {outside} is not in the table, which has {rows} rows (0-{rows - 1})")
    if len(repeated := numbers[1:][numbers[1:] == numbers[:-1]]):
        raise DataError(f"split: {name} row {repeated[0]} is named more than once; expected each row once")
    return numbers


def random_mask(rows: int, count: int, generator: np.random.Generator) -> Mask:
    """Mark `count` of the rows."""
    mask = np.zeros(rows, np.bool_)
    mask[generator.permutation(rows)[:count]] = True
    return mask


def stratified_mask(codes: Rows, count: int, generator: np.random.Generator) -> Mask:
    """Mark about `count` rows: of each class its share, rounded down or up, and never all. `codes` (n,) count from 0.

    The rows that rounding down leaves over go to the classes that have none yet, then to those with the largest
    remainders.
    """
    sizes = np.bincount(codes)
    quotas, remainders = np.divmod(sizes * count, len(codes))
    quotas = np.minimum(quotas, np.maximum(sizes - 1, 0))
    in_turn = np.lexsort((-remainders, quotas > 0))
    in_turn = in_turn[quotas[in_turn] + 1 < sizes[in_turn]]
    quotas[in_turn[: count - quotas.sum()]] += 1
    order = generator.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    rank_in_class = np.arange(len(codes)) - np.repeat(sizes.cumsum() - sizes, sizes)
    mask = np.zeros(len(codes), np.bool_)
    mask[order[rank_in_class < np.repeat(quotas, sizes)]] = True
    return mask


def group_mask(codes: Rows, count: int, generator: np.random.Generator) -> Mask:
    """Mark some of the groups, not all, with about `count` rows. `codes` (n,) number at least two groups from 0."""
    sizes = np.bincount(codes)
    order = generator.permutation(len(sizes))
    groups = np.zeros(len(sizes), np.bool_)
    groups[order[nearest_sum(sizes[order], count)]] = True
    return groups[codes]


def nearest_sum(sizes: Rows, goal: int) -> list[int]:
    """Return positions of some, not all, of `sizes` (at least two, each above 0) with the sum nearest to `goal`.

    Dynamic programming over the sums: for each it notes the last size in it, and it stops at `goal`. If that could take
    more than MAX_SEARCH, the first sizes are taken as they come and only the last SEARCHED_TAIL rows are looked for, so
    that the sum may miss by a few.
    """
    totals = sizes.cumsum()
    n_taken = int(np.searchsorted(totals, goal - SEARCHED_TAIL, "right")) if len(sizes) * goal > MAX_SEARCH else 0
    goal -= int(totals[n_taken - 1]) if n_taken else 0
    rest = sizes[n_taken:]
    limit = int(min(rest.sum() - rest.min(), max(2 * goal, rest.min())))
    last_size = np.full(limit + 1, -1)  # for each sum, the position of the last of the sizes in it
    reached = np.arange(limit + 1) == 0
    for position in np.flatnonzero(rest <= limit)[: max(MAX_SEARCH // (limit + 1), 64)]:
        size = rest[position]
        sums = np.flatnonzero(reached[: limit + 1 - size] & ~reached[size:]) + size
        reached[sums], last_size[sums] = True, position
        if goal <= limit and reached[goal]:
            break
    sums = np.flatnonzero(reached)[0 if n_taken else 1 :]
    total = int(sums[np.abs(sums - goal).argmin()])
    positions = list(range(n_taken))
    while total:
        positions.append(n_taken + int(last_size[total]))
        total -= int(rest[last_size[total]])
    return positions
