import copy
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from onecycle import r2_score, rmse
from onecycle.errors import DataError
from onecycle.tables.target import Target, class_weights


def fit(values: Any, task: str | None = None) -> Target:
    return Target.fit(pa.table({"y": values}), ["y"], task)


def numbers(target: Target, values: Any) -> Any:
    return target.transform(pa.table({"y": values})).tolist()


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
    target = Target.fit(pa.table({"y": values}), ["y"], labels_as_written=True)
    assert [target.classes[place] for place in numbers(target, values)] == values


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e30, 1e30), min_size=2).filter(
        lambda values: max(values) - min(values) > max(1e-100, 1e-12 * max(map(abs, values)))
    )
)
def test_every_number_is_found_again(values: list[float]):
    target = fit(values, "regression")
    if not np.isfinite(target.std[0]) or target.std[0] < 1e-30:
        return
    restored = target.inverse_transform(torch.from_numpy(target.transform(pa.table({"y": values}))))
    np.testing.assert_allclose(restored.numpy(), values, rtol=1e-5, atol=1e-2 * target.std[0])


@pytest.mark.parametrize("scale", [1e-99, 1e-50, 1e-31, 1e38, 1e98])
def test_numbers_beyond_float32_keep_their_values(scale: float):
    y = np.array([1.0, 2.0, 4.0, 9.0]) * scale
    table = pa.table({"y": y})
    target = Target.fit(table, ["y"], "regression")
    back = target.inverse_transform(torch.from_numpy(target.transform(table)))
    assert back.dtype is torch.float64
    assert np.allclose(back.numpy(), y, rtol=1e-6, atol=0)
    assert r2_score(back, torch.from_numpy(y)) == pytest.approx(1)
    zeros, units = torch.zeros(4, dtype=torch.float64), torch.from_numpy(y)
    assert rmse(zeros, units) == pytest.approx(np.sqrt(25.5) * scale)
    assert r2_score(zeros, units) == pytest.approx(1 - 102 / 38)


@pytest.mark.parametrize(
    "y",
    [
        np.array([1e-120, 2e-120, 3e-120]),
        np.array([5e-324, 1e-323, 1e-322]),
        np.array([1.0, 1.0 + 2.3e-16, 1.0]),
        np.array([10**18, 10**18 + 1, 10**18 + 100]),
    ],
)
def test_numbers_that_float64_cannot_tell_apart_are_refused(y: np.ndarray):
    with pytest.raises(DataError, match='target "y" is from .*float64 cannot compute with differences so small'):
        Target.fit(pa.table({"y": y}), ["y"], "regression")


@pytest.mark.parametrize("y", [1e9 + np.arange(5) * 1e-3, 1e15 + np.arange(5.0), 10**15 + np.arange(5)])
def test_a_small_spread_beside_a_large_mean_is_kept(y: np.ndarray):
    table = pa.table({"y": y})
    target = Target.fit(table, ["y"], "regression")
    back = target.inverse_transform(torch.from_numpy(target.transform(table))).numpy()
    assert np.allclose(back - y, 0, atol=1e-3 * np.std(y))
