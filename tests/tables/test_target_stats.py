import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from onecycle.errors import DataError, SettingError
from onecycle.tables.target import Target


def fit(values: Any, task: str | None = None) -> Target:
    return Target.fit(pa.table({"y": values}), ["y"], task)


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["b", "a", "b"], "classes", ["a", "b"]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), "classes", ["a", "b"]),
        (pa.array(["b", "a"], pa.string_view()), "classes", ["a", "b"]),
        ([True, False], "classes", [False, True]),
        ([3, 1, 10] * 5, "classes", [1, 3, 10]),
        ([3.0, 1.0, 10.0] * 5, "classes", [1, 3, 10]),
        ([1, 0, 1], "classes", [0, 1]),
        ([2**62 + 1, 2**62], "classes", [2**62, 2**62 + 1]),
        ([Decimal(1), Decimal(2)], "classes", [1, 2]),
        (pa.array([10, 2, 10]).dictionary_encode(), "classes", [2, 10]),
        ([3, 1, 10] * 4, "regression", None),
        ([0.5, 1.0] * 50, "regression", None),
        (list(range(21)) * 50, "regression", None),
        ([Decimal("1.5"), Decimal("2.5")], "regression", None),
        ([dt.timedelta(seconds=1.5), dt.timedelta(seconds=4)], "regression", None),
        ([["b"], ["a", "b"], []], "multilabel", ["a", "b"]),
        (pa.array([["b"], ["a", "b"], []], pa.large_list(pa.string())), "multilabel", ["a", "b"]),
        (pa.array([[3, 10], [10, 1]], pa.list_(pa.int64(), 2)), "multilabel", [1, 3, 10]),
    ],
)
def test_the_task_is_inferred(values: Any, task: str, classes: list[Any] | None):
    target = fit(values)
    assert (target.task, target.classes) == (task, classes)
    assert target.outputs == (1 if classes is None else len(classes))
    assert [type(value) for value in target.classes or []] == [type(value) for value in classes or []]


@pytest.mark.parametrize(
    ("columns", "task", "classes", "outputs"),
    [
        ({"a": [0, 1, 1], "b": [1.0, 0.0, 0.0]}, "multilabel", ["a", "b"], 2),
        ({"a": [True, False, True], "b": [1, 0, 0]}, "multilabel", ["a", "b"], 2),
        ({"a": [0, 1, 1], "b": [2, 0, 0]}, "regression", None, 2),
        ({"a": [0.5, 1, 1], "b": [2, 0, 0], "c": [1, 0, 3]}, "regression", None, 3),
    ],
)
def test_several_columns(columns: dict[str, Any], task: str, classes: Any, outputs: int):
    target = Target.fit(pa.table(columns), list(columns))
    assert (target.task, target.classes, target.outputs, target.names) == (task, classes, outputs, list(columns))


def test_the_task_can_be_set():
    assert fit([0.5, 1.0, 0.5], "classification").classes == [0.5, 1]
    assert fit([*range(100)] * 2, "classes").outputs == 100
    assert fit([0, 1, 1], "regression").task == "regression"
    assert fit([True, False], "regression").task == "regression"
    assert fit(["1.5", "2"], "regression").mean == [1.75]
    assert fit([0, 1, 1], "multilabel").classes == ["y"]
    both = pa.table({"a": [0, 1], "b": [1, 0]})
    assert Target.fit(both, ["a", "b"], "regression").task == "regression"


ONE = {"price": [1.5, 2.5], "y": ["a", "b"]}


@pytest.mark.parametrize(
    ("columns", "names", "task", "message"),
    [
        (ONE, ["prize"], None, 'there is no column "prize" to predict; did you mean "price"?'),
        ({"price": [1, 2], "x": [3, 4]}, ["y"], None, 'there is no column "y", which is predicted if target= is left out; there are price, x: name one with target=, or --target'),
        (ONE, ["qq"], None, 'there is no column "qq" to predict; there are price, y'),
        (ONE, [], None, "the target is []; expected a list of different column names, at least one"),
        (ONE, ["y", "y"], None, "the target is ['y', 'y']; expected a list of different column names, at least one"),
        (ONE, "y", None, "the target is 'y'; expected a list of different column names, at least one"),
        (ONE, ["y"], "regresion", 'unknown task "regresion"; expected one of classes, regression, multilabel; did you mean "regression"?'),
        (ONE, ["price", "y"], "classes", "task classes is for one column, and the target has 2; expected multilabel or regression"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(columns: Any, names: Any, task: str | None, message: str):
    with pytest.raises(SettingError) as error:
        Target.fit(pa.table(columns), names, task)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        ([1.5, None, 2.5, None], None, 'target "y" is missing in 2 of 4 rows, first in row 1, counted from 0; expected a value in each: drop the rows without one'),
        ([1.5, float("nan"), 2.5], None, 'target "y" is missing in 1 of 3 rows, first in row 1, counted from 0; expected a value in each: drop the rows without one'),
        (["a", "b", None], None, 'target "y" is missing in 1 of 3 rows, first in row 2, counted from 0; expected a value in each: drop the rows without one; a text such as NA or None counts as missing: if it is a class, say so: --kind y=category, or in Python kinds={"y": "category"}'),
        (["a", "NA", "b", " "], None, 'target "y" is missing in 2 of 4 rows, first in row 1, counted from 0; expected a value in each: drop the rows without one; a text such as NA or None counts as missing: if it is a class, say so: --kind y=category, or in Python kinds={"y": "category"}'),
        ([True, None], None, 'target "y" is missing in 1 of 2 rows, first in row 1, counted from 0; expected a value in each: drop the rows without one'),
        (pa.nulls(3), None, 'target "y" is missing in 3 of 3 rows, first in row 0, counted from 0; expected a value in each: drop the rows without one'),
        ([["a"], None], None, 'target "y" is missing in 1 of 2 rows, first in row 1, counted from 0; expected a value in each: drop the rows without one'),
        ([["a"], ["b", None]], None, 'row 1: target "y" has a label without a value; expected text or numbers in each list'),
        (["a", "a"], None, "target \"y\" has only one class, 'a', in all 2 rows; expected two or more: there is nothing to predict"),
        ([7, 7], None, 'target "y" has only one class, 7, in all 2 rows; expected two or more: there is nothing to predict'),
        ([7.5, 7.5], None, 'target "y" is 7.5 in all 2 rows; expected different numbers: there is nothing to predict'),
        ([7, 7], "regression", 'target "y" is 7 in all 2 rows; expected different numbers: there is nothing to predict'),
        ([1.5, 2.5, float("inf")], None, 'row 2: target "y" is inf (1 such values); expected finite numbers within ±1e+100: correct or drop these rows'),
        ([1.5, -1e200], None, 'row 1: target "y" is -1e+200 (1 such values); expected finite numbers within ±1e+100: correct or drop these rows'),
        ([2.0**53, 2.0**60], None, 'target "y" holds whole numbers such as 1152921504606846976 as floats, which are not exact beyond 2**53; if they are classes, say so: --kind y=category, or in Python kinds={"y": "category"}, or give them as text; if they are quantities: --task regression'),
        ([0.5, float("inf")], "classes", 'target "y" is infinite in some rows; expected finite numbers: drop these rows'),
        (["1.5", "abc"], "regression", "row 1: column \"y\" is 'abc'; expected a number"),
        ([dt.date(2020, 1, 1)], None, 'target "y" holds dates (date32[day]), which cannot be predicted; expected classes or numbers: make a column of the days since a start, say, and predict that'),
        ([{"a": 1}], None, 'target "y" holds struct<a: int64>; expected text, numbers or true and false'),
        ([[[1]]], None, 'target "y" holds list<item: list<item: int64>>; lists can be labels of a lone multilabel target only'),
        ([["a"]], "classes", 'target "y" holds list<item: string>; lists can be labels of a lone multilabel target only'),
        (pa.array([[], []], pa.list_(pa.string())), None, 'target "y" has no label in any of its 2 lists; expected some'),
        ([f"k{i}" for i in range(100)], None, 'target "y" has another text in each of 100 rows; expected classes that occur again and again: is it an identifier?'),
        ([i + 0.5 for i in range(30)], "classes", 'target "y" has 30 different values in 30 rows; expected classes that occur again and again: did you mean task="regression", or --task regression?'),
        (["a", "b"], "multilabel", "row 0: column \"y\" is 'a'; expected a number"),
        ([1, 2], "multilabel", 'target "y" has other numbers than 0 and 1; expected these for each label of a multilabel target: for numbers of any kind set task="regression"'),
        ([1, 1], "multilabel", 'target "y" is the same in all 2 rows; expected both 0 and 1'),
        (pa.array([], pa.int64()), None, "the table has no rows to train on; expected at least one"),
    ],
)  # fmt: skip
def test_targets_that_nothing_can_be_learned_from(values: Any, task: str | None, message: str):
    with pytest.raises(DataError) as error:
        fit(values, task)
    assert str(error.value) == message


def test_several_columns_are_numbers():
    with pytest.raises(DataError, match="row 0: column \"b\" is 'x'; expected a number"):
        Target.fit(pa.table({"a": [1, 2], "b": ["x", "y"]}), ["a", "b"])
    with pytest.raises(DataError, match='target "b" is missing in 1 of 2 rows, first in row 0'):
        Target.fit(pa.table({"a": [1, 2], "b": [None, 2.0]}), ["a", "b"])


def test_the_row_of_a_fault_is_counted_over_chunks():
    values = ["a", "b"] * 300_000
    target = fit(values)
    values[599_999] = "c"
    with pytest.raises(DataError, match="row 599999: target \"y\" is 'c'"):
        target.transform(pa.table({"y": values}))
    with pytest.raises(DataError, match="missing in 1 of 600,000 rows, first in row 599999"):
        fit([*range(599_999), None])
