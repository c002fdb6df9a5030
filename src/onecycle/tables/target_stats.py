"""Infer the target of a table from statistics of its columns: the task, the classes, mean and standard deviation."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from onecycle.core.choices import Task
from onecycle.errors import DataError, SettingError, did_you_mean
from onecycle.tables.categories import ValueCounts
from onecycle.tables.numbers import CHUNK_ROWS, LARGEST, Moments
from onecycle.tables.spec import column_hint
from onecycle.tables.values import (
    AS_WRITTEN,
    USUAL_TEXTS,
    Array,
    TextRule,
    as_numbers,
    decode_column,
    dictionary_codes,
    import_pyarrow,
    list_places,
    value_kind,
    value_texts,
    value_type,
)

TASKS: tuple[Task, ...] = get_args(Task)
_TASK_SYNONYMS: dict[str, Task] = {"classification": "classes", "class": "classes", "multi-label": "multilabel"}
_MAX_NUMBER_CLASSES = 20  # different whole numbers that may be inferred to be classes
_MIN_ROWS_PER_CLASS = 5  # on average, for more than two whole numbers to be inferred to be classes
_SMALL_TABLE = 20  # rows; in no more, each row may have a class of its own
_COARSEST = 0.25  # distance of two float64s, in standard deviations of a target
_MAX_CLASS_SHARE = 0.5  # of the rows, that different numbers may be to be classes


class TargetStats:
    """Collects the statistics of a target's column that comes in chunks.

    Attributes:
        reading: How the column is read: as "numbers", as "values" (classes), or as "lists" (of labels).
        moments: Mean, standard deviation and range of numbers.
        whole_numbers: The different numbers; None if there are more than 20, or if some are not whole.
        is_float: Whether the column holds floats.
        counts: How often each value or label occurs.
    """

    def __init__(
        self, name: str, arrow_type: Any, reading: Literal["numbers", "values", "lists"], rule: TextRule = USUAL_TEXTS
    ) -> None:
        self.name, self.reading, self.rule, self.rows = name, reading, AS_WRITTEN if reading == "lists" else rule, 0
        self.chunk_rows = CHUNK_ROWS if reading == "numbers" else ValueCounts.chunk_rows
        self.moments, self.counts = Moments(), ValueCounts(name, self.rule)
        self.whole_numbers: set[int] | None = set()
        types, self._is_text = import_pyarrow()[0].types, value_kind(arrow_type) == "text"
        self._is_integer = types.is_integer(value_type(arrow_type))
        self.is_float = types.is_floating(value_type(arrow_type))
        self._missing, self._first_missing = 0, 0

    def add(self, column: Any) -> None:
        """Add at most `chunk_rows` rows. Raises DataError for infinity, and for text if numbers are expected."""
        if self.reading == "numbers":
            missing = self._add_numbers(column)
        elif self.reading == "lists":
            missing = column.is_null().to_numpy()
            self.counts.add(labels_of(column, self.name, self.rows)[0])
        else:
            before = self.counts.missing
            self.counts.add(column)
            missing = missing_values(column, self.rule) if self.counts.missing > before else None
        if missing is not None and missing.any():
            self._first_missing = self._first_missing if self._missing else self.rows + int(missing.argmax())
            self._missing += int(missing.sum())
        self.rows += len(column)

    def check_present(self) -> None:
        """Raise DataError if rows have no value."""
        if self._missing:
            error = _missing_error(self.name, self._missing, self.rows, self._first_missing, "")
            if self.reading == "values" and self._is_text and self.rule.markers:
                raise DataError(
                    f"{error}; a text such as NA or None counts as missing: if it is a class, say so: --kind "
                    f'{self.name}=category, or in Python kinds={{"{self.name}": "category"}}'
                )
            raise error

    def _add_numbers(self, column: Any) -> Array | None:
        x, missing = finite_numbers(column, self.name, self.rows)
        x = x if missing is None else x[~missing]
        self.moments.add(x)
        if self.whole_numbers is not None and len(x):
            distinct = np.unique(decode_column(column).drop_null().to_numpy() if self._is_integer else x)
            whole = len(distinct) <= _MAX_NUMBER_CLASSES and bool((distinct == np.floor(distinct)).all())
            numbers = self.whole_numbers | {int(number) for number in distinct} if whole else None
            self.whole_numbers = numbers if numbers and len(numbers) <= _MAX_NUMBER_CLASSES else None
        return missing


def finite_numbers(column: Any, name: str, first_row: int) -> tuple[Array, Array | None]:
    """Return a target's column as float64, and the mask of missing rows (None if there are none).

    Raises DataError, with the row, for infinity, for numbers beyond ±1e100 and for text that is not a number.
    """
    x, not_finite = as_numbers(column, name, first_row)
    missing = None if not_finite is None else np.isnan(x)
    with np.errstate(invalid="ignore"):
        large = np.abs(x) > LARGEST
    if large.any():
        row = int(large.argmax())
        raise DataError(
            f'row {first_row + row}: target "{name}" is {x[row]} ({int(large.sum())} such values); expected finite '
            f"numbers within ±{LARGEST:g}: correct or drop these rows"
        )
    return x, missing


def missing_values(column: Any, rule: TextRule = AS_WRITTEN) -> Array:
    """Return the mask of rows of a column of categories without a value: null, NaN, or text as the `rule` says."""
    masks = [np.empty(0, bool)]
    for values, places in dictionary_codes(column):
        missing = value_texts(values, rule).is_null().to_numpy(zero_copy_only=False)
        masks.append(np.append(missing, True)[places])  # the last is for null, whose place is -1
    return np.concatenate(masks)


def check_present(name: str, missing: Array | None, first_row: int, set_name: str) -> None:
    """Raise DataError if a target is missing in one of these rows of the set called `set_name`."""
    if missing is not None and missing.any():
        first = first_row + int(missing.argmax())
        raise _missing_error(name, int(missing.sum()), len(missing), first, f"{set_name} ")


def _missing_error(name: str, missing: int, rows: int, first: int, set_name: str) -> DataError:
    return DataError(
        f'target "{name}" is missing in {missing:,} of {rows:,} {set_name}rows, first in row {first}, counted from 0; '
        "expected a value in each: drop the rows without one"
    )


def check_zero_or_one(x: Array, name: str, first_row: int) -> None:
    """Raise DataError if a multilabel target has other numbers than 0 and 1."""
    wrong = (x != 0) & (x != 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f'row {first_row + row}: target "{name}" is {x[row]:g}; expected 0 or 1, as of each label')


def labels_of(column: Any, name: str, first_row: int) -> tuple[Any, Array]:
    """Return the labels in a column of lists, and the row of each. Raises DataError for a label that is null."""
    pa, _ = import_pyarrow()
    parts = [list_places(chunk) for chunk in column.chunks]
    labels = pa.chunked_array([values.take(places) for values, places, _ in parts], column.type.value_type)
    rows = np.repeat(np.arange(len(column)), np.concatenate([np.empty(0, int), *(sizes for _, _, sizes in parts)]))
    missing = missing_values(labels)
    if missing.any():
        row = first_row + int(rows[missing.argmax()])
        raise DataError(
            f'row {row}: target "{name}" has a label without a value; expected text or numbers in each list'
        )
    return labels, rows


def check_task(task: str | None, names: Sequence[str]) -> Task | None:
    """Return `task` by its name in TASKS. Raises SettingError for an unknown one, and for names that are not a list."""
    if not names or isinstance(names, str) or len(set(names)) < len(names):
        raise SettingError(f"the target is {names!r}; expected a list of different column names, at least one")
    if task is None:
        return None
    known: dict[str, Task] = _TASK_SYNONYMS | dict(zip(TASKS, TASKS, strict=True))
    if task not in known:
        raise SettingError(f'unknown task "{task}"; expected one of {", ".join(TASKS)}{did_you_mean(task, TASKS)}')
    return known[task]


def collect_target_stats(
    schema: Any, names: Sequence[str], task: str | None, labels_as_written: bool = False
) -> list[TargetStats]:
    """Return empty statistics of the columns, each to be read as its type and the task require.

    Raises SettingError for an unknown column, and as `Target.fit` does.
    """
    stats: list[TargetStats] = []
    for name in names:
        if name not in schema.names:
            raise unknown_target(name, schema.names)
        arrow_type = schema.field(name).type
        reading = _reading(name, arrow_type, len(names), task)
        stats.append(TargetStats(name, arrow_type, reading, AS_WRITTEN if labels_as_written else USUAL_TEXTS))
    return stats


def unknown_target(name: str, columns: Sequence[str]) -> SettingError:
    """Return the error for a target that is not among the columns."""
    hint = column_hint(name, columns)
    if name == "y" and "did you mean" not in hint:
        return SettingError(
            f'there is no column "y", which is predicted if target= is left out{hint}: name one with target=, or '
            "--target"
        )
    return SettingError(f'there is no column "{name}" to predict{hint}')


def _reading(name: str, arrow_type: Any, targets: int, task: str | None) -> Literal["numbers", "values", "lists"]:
    """Return how a column is read."""
    pa, _ = import_pyarrow()
    kind, plain = value_kind(arrow_type), value_type(arrow_type)
    if kind == "date":
        raise DataError(
            f'target "{name}" holds dates ({arrow_type}), which cannot be predicted; expected classes or numbers: make '
            "a column of the days since a start, say, and predict that"
        )
    if any(test(plain) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        labels = value_kind(plain.value_type) in ("text", "number", "bool")
        if targets > 1 or task not in (None, "multilabel") or not labels:
            raise DataError(f'target "{name}" holds {arrow_type}; lists can be labels of a lone multilabel target only')
        return "lists"
    if kind == "other":
        raise DataError(f'target "{name}" holds {arrow_type}; expected text, numbers or true and false')
    if targets > 1 and task == "classes":
        raise SettingError(
            f"task classes is for one column, and the target has {targets}; expected multilabel or regression"
        )
    if task in ("regression", "multilabel") or targets > 1:
        return "numbers"
    if task == "classes" or kind in ("text", "bool") or pa.types.is_dictionary(arrow_type):
        return "values"
    return "numbers"


def infer_target(stats: Sequence[TargetStats], task: Task | None) -> dict[str, Any]:
    """Return the arguments of Target, from statistics of all training rows.

    Raises DataError if nothing can be learned from them.
    """
    if not stats or not stats[0].rows:
        raise DataError("the table has no rows to train on; expected at least one")
    for column in stats:
        column.check_present()
    first, names = stats[0], [column.name for column in stats]
    if first.reading == "lists":
        return {"task": "multilabel", "names": names, "classes": _distinct_values(first), "lists": True}
    if first.reading == "values":
        classes = _classes(first, _distinct_values(first))
        return {"task": "classes", "names": names, "classes": classes, "rule": first.rule}
    whole = first.whole_numbers
    few = whole is not None and (len(whole) <= 2 or first.rows >= _MIN_ROWS_PER_CLASS * len(whole))
    if task is None and len(stats) == 1 and few:
        return {"task": "classes", "names": names, "classes": _classes(first, sorted(whole or ())), "rule": first.rule}
    if task == "multilabel" or (task is None and len(stats) > 1 and all(map(_is_zero_or_one, stats))):
        return {"task": "multilabel", "names": names, "classes": _labels(stats)}
    for column in stats:
        if column.moments.constant:
            raise DataError(
                f'target "{column.name}" is {column.moments.low:g} in all {column.rows:,} rows; expected different '
                "numbers: there is nothing to predict"
            )
        _check_spread(column.name, column.moments)
    mean, std = [column.moments.mean for column in stats], [column.moments.std for column in stats]
    return {"task": "regression", "names": names, "mean": mean, "std": std}


def _check_spread(name: str, moments: Moments) -> None:
    """Raise DataError if the numbers differ by so little that float64 cannot compute with the differences."""
    spread, size = moments.high - moments.low, max(-moments.low, moments.high)
    if spread < 1 / LARGEST or float(np.spacing(size)) > moments.std * _COARSEST:
        raise DataError(
            f'target "{name}" is from {moments.low:.17g} to {moments.high:.17g}, and float64 cannot compute with '
            "differences so small; expected larger ones: subtract what all have in common before they become float64, "
            "or multiply them"
        )


def _distinct_values(column: TargetStats) -> list[Any]:
    """Return the different classes or labels of a column, in order."""
    texts, counts = column.counts.counts()
    form, values, lists = column.counts.form, texts.to_pylist(), column.reading == "lists"
    if not values:
        raise DataError(f'target "{column.name}" has no label in any of its {column.rows:,} lists; expected some')
    if form == "text":
        if not lists and counts[0] == 1 and column.rows > _SMALL_TABLE:
            raise DataError(
                f'target "{column.name}" has another text in each of {column.rows:,} rows; expected classes that occur '
                "again and again: is it an identifier?"
            )
        return sorted(values)
    if form == "bool":
        return [value == "true" for value in sorted(values)]
    if not lists and column.rows > _SMALL_TABLE and len(values) > _MAX_CLASS_SHARE * column.rows:
        raise DataError(
            f'target "{column.name}" has {len(values):,} different values in {column.rows:,} rows; expected '
            'classes that occur again and again: did you mean task="regression", or --task regression?'
        )
    numbers = sorted(int(text) if text.lstrip("-").isdigit() else float(text) for text in values)
    if not all(map(math.isfinite, numbers)):
        raise DataError(f'target "{column.name}" is infinite in some rows; expected finite numbers: drop these rows')
    return numbers


def _classes(column: TargetStats, classes: list[Any]) -> list[Any]:
    """Return the classes. Raises DataError if there is only one, or if they are floats that hide what was written."""
    if column.is_float and any(abs(value) >= 2**53 for value in classes):
        name = column.name
        raise DataError(
            f'target "{name}" holds whole numbers such as {max(classes, key=abs)} as floats, which are not exact '
            f"beyond 2**53; if they are classes, say so: --kind {name}=category, or in Python "
            f'kinds={{"{name}": "category"}}, or give them as text; if they are quantities: --task regression'
        )
    if len(classes) < 2:
        raise DataError(
            f'target "{column.name}" has only one class, {classes[0]!r}, in all {column.rows:,} rows; expected two or '
            "more: there is nothing to predict"
        )
    return classes


def _is_zero_or_one(column: TargetStats) -> bool:
    return column.whole_numbers is not None and column.whole_numbers <= {0, 1}


def _labels(stats: Sequence[TargetStats]) -> list[str]:
    """Return the labels that columns of 0 and 1 stand for."""
    for column in stats:
        if not _is_zero_or_one(column):
            raise DataError(
                f'target "{column.name}" has other numbers than 0 and 1; expected these for each label of a multilabel '
                'target: for numbers of any kind set task="regression"'
            )
    if all(column.moments.constant for column in stats):
        raise DataError(f'target "{stats[0].name}" is the same in all {stats[0].rows:,} rows; expected both 0 and 1')
    return [column.name for column in stats]
