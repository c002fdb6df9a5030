"""What is predicted, concluded from statistics of the target's columns: the task, the classes, mean and deviation."""

import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from onecycle.core.choices import Task
from onecycle.errors import DataError, SettingError, did_you_mean
from onecycle.tables.categories import ValueCounts
from onecycle.tables.numbers import LARGEST, PIECE, Moments
from onecycle.tables.values import (
    Array,
    as_numbers,
    decode_column,
    dictionary_codes,
    import_pyarrow,
    value_kind,
    value_texts,
    value_type,
)

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
        self._whole_type = import_pyarrow()[0].types.is_integer(value_type(held))
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
            different = np.unique(decode_column(column).drop_null().to_numpy() if self._whole_type else x)
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
    for values, places in dictionary_codes(column):
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
    _, pc = import_pyarrow()
    column = decode_column(column).combine_chunks()
    labels, rows = pc.list_flatten(column), pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
    labels = import_pyarrow()[0].chunked_array([labels])
    absent = missing_values(labels)
    if absent.any():
        row = first_row + int(rows[absent.argmax()])
        raise DataError(
            f'row {row}: target "{name}" has a label without a value; expected text or numbers in each list'
        )
    return labels, rows


TASKS: tuple[Task, ...] = get_args(Task)
_OTHER_NAMES = {"classification": "classes", "class": "classes", "multi-label": "multilabel"}
_EACH = 5  # rows that each of a few different numbers has, on average, at least, where these are taken for classes
FEW_ROWS = 20  # in which different texts, or numbers, may all be classes
_MOST_CLASSES = 0.5  # of the rows, where these are numbers


def check_task(task: str | None, names: Sequence[str]) -> str | None:
    """`task` by the name that Target has for it. Raises SettingError for an unknown one, and for names given twice."""
    if not names or isinstance(names, str) or len(set(names)) < len(names):
        raise SettingError(f"the target is {names!r}; expected a list of different column names, at least one")
    if task is None or task in TASKS:
        return task
    if task in _OTHER_NAMES:
        return _OTHER_NAMES[task]
    raise SettingError(f'unknown task "{task}"; expected one of {", ".join(TASKS)}{did_you_mean(task, TASKS)}')


def collect_target_stats(schema: Any, names: Sequence[str], task: str | None) -> list[TargetStats]:
    """Empty statistics of the columns, each read as its type and the task ask for. Raises as `Target.fit` does."""
    held: dict[str, Any] = {}
    for name in names:
        if name not in schema.names:
            raise unknown_target(name, schema.names)
        held[name] = schema.types[schema.names.index(name)]
    return [TargetStats(name, kind, _way(name, kind, len(names), task)) for name, kind in held.items()]


def unknown_target(name: str, names: Sequence[str]) -> SettingError:
    """The error for a target that is none of the columns `names`."""
    some = ", ".join(map(str, names[:10]))
    if near := did_you_mean(name, names):
        return SettingError(f'there is no column "{name}" to predict{near}')
    if name == "y":
        return SettingError(
            f'there is no column "y", which is predicted where target= is missing; there are {some}: name one with '
            "target=, or --target"
        )
    return SettingError(f'there is no column "{name}" to predict; there are {some}')


def _way(name: str, held: Any, targets: int, task: str | None) -> str:
    """How to read a column: as "numbers", "values" or "lists"."""
    pa, _ = import_pyarrow()
    sort, kind = value_kind(held), value_type(held)
    if sort == "date":
        raise DataError(
            f'target "{name}" holds dates ({held}), which cannot be predicted; expected classes or numbers: make a '
            "column of the days since a start, say, and predict that"
        )
    if any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        if (
            targets > 1
            or task not in (None, "multilabel")
            or value_kind(kind.value_type) not in ("text", "number", "bool")
        ):
            raise DataError(f'target "{name}" holds {held}; lists can be labels of a lone multilabel target only')
        return "lists"
    if sort == "other":
        raise DataError(f'target "{name}" holds {held}; expected text, numbers or true and false')
    if targets > 1 and task == "classes":
        raise SettingError(
            f"task classes is for one column, and the target has {targets}; expected multilabel or regression"
        )
    if task in ("regression", "multilabel") or targets > 1:
        return "numbers"
    dictionary = pa.types.is_dictionary(held)
    return "values" if task == "classes" or sort in ("text", "bool") or dictionary else "numbers"


def infer_target(stats: Sequence[TargetStats], task: str | None) -> dict[str, Any]:
    """What Target is made of, from statistics of all rows. Raises DataError where nothing can be learned from them."""
    if not stats or not stats[0].rows:
        raise DataError("the table has no rows to train on; expected at least one")
    for column in stats:
        column.check_present()
    first, names = stats[0], [column.name for column in stats]
    if first.way != "numbers":
        lists = first.way == "lists"
        task = "multilabel" if lists else "classes"
        return {"task": task, "names": names, "classes": _classes(first, lists), "lists": lists}
    few, zero_or_one = first.few, all(column.few is not None and column.few <= {0, 1} for column in stats)
    if task is None and len(stats) == 1 and few is not None and (len(few) <= 2 or first.rows >= _EACH * len(few)):
        return {"task": "classes", "names": names, "classes": _several(first, sorted(few))}
    if task == "multilabel" or (task is None and len(stats) > 1 and zero_or_one):
        return {"task": "multilabel", "names": names, "classes": _labels(stats)}
    for column in stats:
        if column.moments.constant:
            raise DataError(
                f'target "{column.name}" is {column.moments.low:g} in all {column.rows:,} rows; expected different '
                "numbers: there is nothing to predict"
            )
    moments = [column.moments for column in stats]
    mean, std = [found.mean for found in moments], [found.std for found in moments]
    return {"task": "regression", "names": names, "mean": mean, "std": std}


def _classes(column: TargetStats, lists: bool) -> list[Any]:
    """The different values of a column of classes, or of labels, in order."""
    texts, counts = column.counts.counts()
    form, values = column.counts.form, texts.to_pylist()
    if not values:
        raise DataError(f'target "{column.name}" has no label in any of its {column.rows:,} lists; expected some')
    if form == "text":
        if not lists and counts[0] == 1 and column.rows > FEW_ROWS:
            raise DataError(
                f'target "{column.name}" has another text in each of {column.rows:,} rows; expected classes that occur '
                "again and again: is it an identifier?"
            )
        found: list[Any] = sorted(values)
    elif form == "bool":
        found = [value == "true" for value in sorted(values)]
    else:
        if not lists and column.rows > FEW_ROWS and len(values) > _MOST_CLASSES * column.rows:
            raise DataError(
                f'target "{column.name}" has {len(values):,} different values in {column.rows:,} rows; expected '
                'classes that occur again and again: did you mean task="regression", or --task regression?'
            )
        found = sorted(int(text) if text.lstrip("-").isdigit() else float(text) for text in values)
        if not all(map(math.isfinite, found)):
            raise DataError(
                f'target "{column.name}" is infinite in some rows; expected finite numbers: drop these rows'
            )
    return found if lists else _several(column, found)


def _several(column: TargetStats, classes: list[Any]) -> list[Any]:
    if len(classes) < 2:
        raise DataError(
            f'target "{column.name}" has only one class, {classes[0]!r}, in all {column.rows:,} rows; expected two or '
            "more: there is nothing to predict"
        )
    return classes


def _labels(stats: Sequence[TargetStats]) -> list[str]:
    """The labels that columns of 0 and 1 stand for."""
    for column in stats:
        if column.few is None or not column.few <= {0, 1}:
            raise DataError(
                f'target "{column.name}" has other numbers than 0 and 1; expected these for each label of a multilabel '
                'target: for numbers of any kind set task="regression"'
            )
    if all(column.moments.constant for column in stats):
        raise DataError(f'target "{stats[0].name}" is the same in all {stats[0].rows:,} rows; expected both 0 and 1')
    return [column.name for column in stats]
