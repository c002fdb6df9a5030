"""What is predicted, concluded from statistics of the target's columns: the task, the classes, mean and deviation."""

import math
from collections.abc import Sequence
from typing import Any

from onecycle.core.errors import DataError, SettingError, did_you_mean
from onecycle.tables.fit.target import TargetStats
from onecycle.tables.fit.values import arrow, plain_type, sort_of

TASKS = ("classes", "regression", "multilabel")
_OTHER_NAMES = {"classification": "classes", "class": "classes", "multi-label": "multilabel"}
_EACH = 5  # rows that each of a few different numbers has, on average, at least, where these are taken for classes
FEW_ROWS = 20  # in which different texts, or numbers, may all be classes
_MOST_CLASSES = 0.5  # of the rows, where these are numbers


def checked_task(task: str | None, names: Sequence[str]) -> str | None:
    """`task` by the name that Target has for it. Raises SettingError for an unknown one, and for names given twice."""
    if not names or isinstance(names, str) or len(set(names)) < len(names):
        raise SettingError(f"the target is {names!r}; expected a list of different column names, at least one")
    if task is None or task in TASKS:
        return task
    if task in _OTHER_NAMES:
        return _OTHER_NAMES[task]
    raise SettingError(f'unknown task "{task}"; expected one of {", ".join(TASKS)}{did_you_mean(task, TASKS)}')


def reading(schema: Any, names: Sequence[str], task: str | None) -> list[TargetStats]:
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
    pa, _ = arrow()
    sort, kind = sort_of(held), plain_type(held)
    if sort == "date":
        raise DataError(
            f'target "{name}" holds dates ({held}), which cannot be predicted; expected classes or numbers: make a '
            "column of the days since a start, say, and predict that"
        )
    if any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        if (
            targets > 1
            or task not in (None, "multilabel")
            or sort_of(kind.value_type) not in ("text", "number", "bool")
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


def concluded(stats: Sequence[TargetStats], task: str | None) -> dict[str, Any]:
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
