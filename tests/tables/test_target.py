import copy
import datetime as dt
import json
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from onecycle.errors import DataError, SettingError
from onecycle.tables.target import Target, class_weights


def fit(values: Any, task: str | None = None) -> Target:
    return Target.fit(pa.table({"y": values}), ["y"], task)


def numbers(target: Target, values: Any) -> Any:
    return target.transform(pa.table({"y": values})).tolist()


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


def test_classes_become_their_places():
    assert numbers(fit(["b", "a", "b"]), ["b", "b", "a"]) == [1, 1, 0]
    assert numbers(fit([10, 2, 2]), [2, 10]) == [0, 1]
    assert numbers(fit([True, False]), [True, False]) == [1, 0]
    assert fit(["b", "a"]).transform(pa.table({"y": ["a"]})).dtype == np.int64
    for other in (["2", "10.0"], [2.0, 10.0], pa.array([2, 10], pa.int8()), pa.array([2, 10]).dictionary_encode()):
        assert numbers(fit([10, 2, 2]), other) == [0, 1]


def test_numbers_are_standardised_and_restored():
    random = np.random.default_rng(0)
    x = random.normal(50, 3, (100, 2))
    table = pa.table({"a": x[:, 0], "b": x[:, 1]})
    target = Target.fit(table, ["a", "b"])
    y = target.transform(table)
    np.testing.assert_allclose(y, (x - x.mean(0)) / x.std(0), rtol=1e-5, atol=1e-6)
    assert y.dtype == np.float32
    restored = target.inverse_transform(torch.from_numpy(y))
    assert restored.dtype == torch.float32
    np.testing.assert_allclose(restored.numpy(), x, rtol=1e-6)
    one = Target.fit(table, ["a"])
    flat = torch.from_numpy(one.transform(table))
    assert flat.shape == (100,)
    np.testing.assert_allclose(one.inverse_transform(flat).numpy(), x[:, 0], rtol=1e-6)
    np.testing.assert_allclose(one.inverse_transform(flat[:, None]).numpy(), x[:, :1], rtol=1e-6)


def test_units_that_float32_is_too_coarse_for_are_float64():
    values = np.arange(100) * 1e-3 + 1e9
    target = fit(values)
    restored = target.inverse_transform(torch.from_numpy(target.transform(pa.table({"y": values}))))
    assert restored.dtype == torch.float64
    np.testing.assert_allclose(restored.numpy(), values, rtol=0, atol=1e-6)
    large = fit([1e60, 2e60, 4e60])
    assert large.inverse_transform(torch.zeros(1)).item() == pytest.approx(7e60 / 3)


@pytest.mark.parametrize("scale", [1.0, 1e9])
def test_values_are_restored_on_their_own_device(scale: float):
    target = fit(np.arange(100) / 10 + scale)
    for values in (torch.empty(3, device="meta"), torch.empty(3, 1, device="meta")):  # whose values nobody can read
        found = target.inverse_transform(values)
        assert (found.device, found.shape) == (values.device, values.shape)
    assert target.inverse_transform(torch.zeros(2)).tolist() == pytest.approx([scale + 4.95] * 2)


def test_restored_values_need_no_gradient_and_are_those_of_float64_bit_for_bit():
    target = Target.fit(pa.table({"a": np.arange(9) / 7, "b": np.arange(9) / 3}), ["a", "b"])
    values = torch.randn(50, 2, requires_grad=True)
    found = target.inverse_transform(values)
    expected = values.detach().numpy().astype(np.float64) * np.array(target.std) + np.array(target.mean)
    assert not found.requires_grad
    np.testing.assert_array_equal(found.numpy(), expected.astype(np.float32))


def test_what_is_no_regression_is_left_as_it_is():
    values = torch.rand(3, 2)
    assert fit(["a", "b"]).inverse_transform(values) is values


def test_labels_become_zeros_and_ones():
    target = fit([["b"], ["a", "b", "b"], []])
    found = target.transform(pa.table({"y": pa.array([["b"], [], ["b", "a"]])}))
    assert (found.tolist(), found.dtype) == ([[0, 1], [0, 0], [1, 1]], np.float32)
    table = pa.table({"a": [True, False], "b": [0.0, 1.0]})
    assert Target.fit(table, ["a", "b"]).transform(table).tolist() == [[1, 0], [0, 1]]


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
        (["a", "b", None], None, 'target "y" is missing in 1 of 3 rows, first in row 2, counted from 0; expected a value in each: drop the rows without one'),
        (["a", "", "b"], None, 'target "y" is missing in 1 of 3 rows, first in row 1, counted from 0; expected a value in each: drop the rows without one'),
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


@pytest.mark.parametrize(
    ("train", "later", "message"),
    [
        (["a", "b"], ["a", "c"], "row 101: target \"y\" is 'c', which validation has and training lacks (there: 'a', 'b'); drop such rows, or split so that training has each class"),
        ([1, 2], [1.5], "row 100: target \"y\" is 1.5, which validation has and training lacks (there: 1, 2); drop such rows, or split so that training has each class"),
        ([chr(97 + i) for i in range(12)], ["z"], "row 100: target \"y\" is 'z', which validation has and training lacks (there: 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', …); drop such rows, or split so that training has each class"),
        ([["a"], ["b"]], [["a"], ["b", "c"]], "row 101: target \"y\" is 'c', which validation has and training lacks (there: 'a', 'b'); drop such rows, or split so that training has each class"),
        (["a", "b"], ["a", None], 'target "y" is missing in 1 of 2 validation rows, first in row 101, counted from 0; expected a value in each: drop the rows without one'),
        ([1.5, 2.5], [1.5, None], 'target "y" is missing in 1 of 2 validation rows, first in row 101, counted from 0; expected a value in each: drop the rows without one'),
        ([["a"], ["b"]], [["a"], None], 'target "y" is missing in 1 of 2 validation rows, first in row 101, counted from 0; expected a value in each: drop the rows without one'),
        ([1.5, 2.5], ["a"], "row 100: column \"y\" is 'a'; expected a number"),
    ],
)  # fmt: skip
def test_labels_that_training_lacks(train: Any, later: Any, message: str):
    target = fit(train)
    with pytest.raises(DataError) as error:
        target.transform(pa.table({"y": later}), first_row=100)
    assert str(error.value) == message
    with pytest.raises(DataError, match='no column "y"'):
        target.transform(pa.table({"x": later}))


def test_the_set_is_named():
    with pytest.raises(DataError, match="which test has and training lacks"):
        fit(["a", "b"]).transform(pa.table({"y": ["c"]}), set_name="test")


def test_other_numbers_than_zero_and_one():
    table = pa.table({"a": [0, 1], "b": [1, 0]})
    with pytest.raises(DataError) as error:
        Target.fit(table, ["a", "b"]).transform(pa.table({"a": [0, 1], "b": [1, 3]}))
    assert str(error.value) == 'row 1: target "b" is 3; expected 0 or 1, as of each label'


def test_the_row_of_a_fault_is_counted_over_pieces():
    values = ["a", "b"] * 300_000
    target = fit(values)
    values[599_999] = "c"
    with pytest.raises(DataError, match="row 599999: target \"y\" is 'c'"):
        target.transform(pa.table({"y": values}))
    with pytest.raises(DataError, match="missing in 1 of 600,000 rows, first in row 599999"):
        fit([*range(599_999), None])


@pytest.mark.parametrize("values", [["b", "a"], [1, 2, 2], [True, False], [0.5, 2.5, 7], [["a"], ["b"]]])
def test_batches_give_what_the_whole_table_gives(values: Any):
    table = pa.table({"y": pa.array(values * 1000)})
    streamed = Target.fit_stream(table.to_batches(max_chunksize=700), ["y"])
    whole = Target.fit(table, ["y"])
    assert streamed.to_dict() == {**whole.to_dict(), "mean": pytest.approx(whole.mean), "std": pytest.approx(whole.std)}
    assert Target.fit_stream(iter([table]), ["y"]).to_dict() == whole.to_dict()


@pytest.mark.parametrize(
    ("columns", "task"),
    [
        ({"y": ["b", "a"]}, None),
        ({"y": [1, 2]}, None),
        ({"y": [True, False]}, None),
        ({"y": [0.5, 2]}, "classes"),
        ({"y": [1.1, 2.7]}, None),
        ({"a": [0, 1], "b": [1, 0]}, None),
        ({"a": [0.1, 1], "b": [1, 0.3]}, None),
        ({"y": [["x"], ["y", "x"]]}, None),
        ({"y": [[1], [2, 3]]}, None),
    ],
)
def test_a_description_gives_the_same_target(columns: Any, task: str | None):
    table = pa.table(columns)
    target = Target.fit(table, list(columns), task)
    again = Target.from_dict(json.loads(json.dumps(target.to_dict(), allow_nan=False)))
    assert again.to_dict() == target.to_dict()
    assert (again.outputs, again.task) == (target.outputs, target.task)
    assert again.transform(table).tobytes() == target.transform(table).tobytes()
    values = torch.randn(5, target.outputs)
    assert torch.equal(again.inverse_transform(values), target.inverse_transform(values))


CLASSES = Target.fit(pa.table({"y": ["a", "b"]}), ["y"]).to_dict()
NUMBER = Target.fit(pa.table({"y": [0.5, 2.5]}), ["y"]).to_dict()
LABELS = Target.fit(pa.table({"a": [0, 1], "b": [1, 0]}), ["a", "b"]).to_dict()


@pytest.mark.parametrize(
    ("written", "key", "value", "message"),
    [
        (CLASSES, "format", 3, "target.format is 3; expected 1, what this version of onecycle writes"),
        (CLASSES, "task", "guess", "target.task is 'guess'; expected one of classes, regression, multilabel"),
        (CLASSES, "names", ["y", "z"], "target.names is ['y', 'z']; expected what classes is predicted of"),
        (CLASSES, "names", [], "target.names is []; expected the columns that mean and std are of"),
        (CLASSES, "names", ["y", 3], "target.names is ['y', 3]; expected different texts"),
        (CLASSES, "classes", None, "target.classes is None; expected a list"),
        (CLASSES, "classes", ["a"], "target.classes is ['a']; expected different texts, numbers, or true and false"),
        (CLASSES, "classes", ["a", "a"], "target.classes is ['a', 'a']; expected different texts, numbers, or true and false"),
        (CLASSES, "classes", ["a", 1], "target.classes is ['a', 1]; expected different texts, numbers, or true and false"),
        (CLASSES, "classes", [1, True], "target.classes is [1, True]; expected different texts, numbers, or true and false"),
        (CLASSES, "classes", [1.5, float("nan")], "target.classes is [1.5, nan]; expected different texts, numbers, or true and false"),
        (CLASSES, "classes", [[], {}], "target.classes is [[], {}]; expected different texts, numbers, or true and false"),
        (CLASSES, "mean", [1], "target.names is ['y']; expected the columns that mean and std are of"),
        (CLASSES, "lists", 0, "target.lists is 0; expected true or false"),
        (NUMBER, "mean", [], "target.names is ['y']; expected the columns that mean and std are of"),
        (NUMBER, "mean", ["1"], "target.mean[0] is '1'; expected a finite number"),
        (NUMBER, "std", [0], "target.std[0] is 0; expected a finite number above 0"),
        (LABELS, "classes", ["a", "c"], "target.names is ['a', 'b']; expected what multilabel is predicted of"),
    ],
)  # fmt: skip
def test_a_damaged_description_is_refused(written: Any, key: str, value: Any, message: str):
    damaged = copy.deepcopy(written)
    damaged[key] = value
    with pytest.raises(DataError) as error:
        Target.from_dict(damaged)
    assert str(error.value) == f"{message}; take an undamaged copy, or train and save again"


def test_a_description_that_is_none():
    with pytest.raises(DataError, match="target is None; expected an object"):
        Target.from_dict(None)


def test_class_weights_are_scikit_learns():
    y = np.random.default_rng(0).integers(0, 4, 1000) ** 2 % 5
    present = np.unique(y)
    expected = compute_class_weight("balanced", classes=present, y=y) * len(present) / 6
    found = class_weights(y, 6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[present], expected, rtol=1e-6)
    assert (np.delete(found, present) == 1).all()


@settings(deadline=None)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=2).filter(lambda texts: len(set(texts)) > 1))
def test_every_text_is_found_again(values: list[str]):
    if len(values) > 20 and len(set(values)) == len(values):
        return
    target = fit(values)
    assert [target.classes[place] for place in numbers(target, values)] == values


@settings(deadline=None)
@given(st.lists(st.floats(-1e30, 1e30), min_size=2).filter(lambda values: len(set(values)) > 1))
def test_every_number_is_found_again(values: list[float]):
    target = fit(values, "regression")
    if not np.isfinite(target.std[0]) or target.std[0] < 1e-30:
        return
    restored = target.inverse_transform(torch.from_numpy(target.transform(pa.table({"y": values}))))
    np.testing.assert_allclose(restored.numpy(), values, rtol=1e-5, atol=1e-2 * target.std[0])
