import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from onecycle.errors import DataError
from onecycle.train.epoch_metrics import average_precision, f1_score, mae, mse, r2_score, rmse, roc_auc
from onecycle.train.metrics import is_epoch_metric

EXACT = {"rel": 1e-9, "abs": 1e-12, "nan_ok": True}
seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, rows: int, columns: int | None, tied: bool) -> Tensor:
    """Logits: float64 from a normal distribution, or few whole numbers."""
    random = np.random.default_rng(seed)
    shape = (rows,) if columns is None else (rows, columns)
    return torch.from_numpy(random.integers(-2, 3, shape).astype(float) if tied else random.normal(size=shape) * 3)


def labels(seed: int, rows: int, classes: int, columns: int | None = None) -> Tensor:
    shape = (rows,) if columns is None else (rows, columns)
    return torch.from_numpy(np.random.default_rng(seed + 1).integers(0, classes, shape))


def defined(function: Callable[..., float], truth: Any, scores: Any) -> float:
    """scikit-learn's value of one class, NaN where it is undefined."""
    truth = np.asarray(truth)
    if not truth.any() or (function is oracle.roc_auc_score and truth.all()):
        return math.nan
    return function(truth, np.asarray(scores))


def mean_of_defined(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


# --- two classes -----------------------------------------------------------------------------------------------------

RANKING = [(roc_auc, oracle.roc_auc_score), (average_precision, oracle.average_precision_score)]


@pytest.mark.slow
@settings(deadline=None)
@given(seed=seeds, rows=st.integers(1, 60), tied=st.booleans(), shape=st.sampled_from(["(n,)", "(n, 1)", "(n, 2)"]))
def test_two_classes_are_scored_as_by_scikit_learn(seed: int, rows: int, tied: bool, shape: str):
    logits = drawn(seed, rows, 2 if shape == "(n, 2)" else None, tied)
    scores = logits[:, 1] - logits[:, 0] if shape == "(n, 2)" else logits
    preds = logits[:, None] if shape == "(n, 1)" else logits
    targets = labels(seed, rows, 2)
    for ours, theirs in RANKING:
        assert ours(preds, targets) == pytest.approx(defined(theirs, targets, scores), **EXACT)
    expected = oracle.f1_score(targets, scores > 0, zero_division=np.nan)
    assert f1_score(preds, targets) == pytest.approx(expected, **EXACT)


def test_targets_of_bce_are_floats_in_any_matching_shape():
    preds, targets = drawn(0, 30, 1, tied=True), labels(0, 30, 2)
    for metric in (f1_score, roc_auc, average_precision):
        expected = metric(preds[:, 0], targets)
        assert metric(preds, targets[:, None].float()) == metric(preds, targets.float()) == expected
        assert metric(preds[:, 0], targets.bool()) == metric(preds[:, 0], targets.to(torch.uint8)) == expected
        assert metric(torch.cat([-preds, preds], 1), targets[:, None]) == expected


def test_ranks_do_not_depend_on_the_scale_of_the_logits():
    logits, targets = drawn(3, 50, None, tied=False), labels(3, 50, 2)
    for metric in (roc_auc, average_precision):
        assert metric(logits, targets) == metric(logits.sigmoid(), targets) == metric(100 * logits + 5, targets)


def test_logits_that_float32_softmax_would_tie_are_told_apart():
    preds = torch.tensor([[0.0, 40.0], [0.0, 50.0], [0.0, 60.0]])
    assert roc_auc(preds, torch.tensor([0, 0, 1])) == 1
    assert preds.softmax(1)[:, 1].unique().numel() == 1


def test_low_precision_outputs_are_taken_as_they_are():
    preds, targets = drawn(0, 40, 3, tied=False), labels(0, 40, 3)
    for metric in (f1_score, roc_auc, average_precision):
        for dtype in (torch.float16, torch.bfloat16, torch.float32):
            assert metric(preds.to(dtype), targets) == metric(preds.to(dtype).double(), targets)


def test_area_of_many_rows_is_exact():
    targets = torch.arange(2_000_000) % 2
    assert roc_auc(torch.zeros(2_000_000), targets) == 0.5
    assert roc_auc(targets.float(), targets) == 1
    assert average_precision(torch.zeros(2_000_000), targets) == 0.5


# --- several classes -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(deadline=None)
@given(seed=seeds, rows=st.integers(1, 60), classes=st.integers(3, 6), tied=st.booleans())
def test_several_classes_are_scored_as_by_scikit_learn(seed: int, rows: int, classes: int, tied: bool):
    preds, targets = drawn(seed, rows, classes, tied), labels(seed, rows, classes)
    shares = preds.softmax(1)
    for ours, theirs in RANKING:
        each = [defined(theirs, targets == c, shares[:, c]) for c in range(classes)]
        assert ours(preds, targets) == pytest.approx(mean_of_defined(each), **EXACT)
    expected = oracle.f1_score(targets, preds.argmax(1), average="macro")  # over the classes there or predicted
    assert f1_score(preds, targets) == pytest.approx(expected, **EXACT)


def test_where_every_class_is_there_it_is_scikit_learns_macro_average():
    preds, targets = drawn(1, 200, 4, tied=False), labels(1, 200, 4)
    shares = preds.softmax(1).numpy()
    expected = oracle.roc_auc_score(targets, shares, multi_class="ovr", average="macro")
    assert roc_auc(preds, targets) == pytest.approx(expected, **EXACT)
    expected = oracle.average_precision_score(targets, shares, average="macro")
    assert average_precision(preds, targets) == pytest.approx(expected, **EXACT)


def test_sequences_of_classes_count_each_place():
    preds, targets = drawn(1, 20, 12, tied=False).view(20, 3, 4), labels(1, 20, 4, 3)
    for metric in (f1_score, roc_auc, average_precision):
        assert metric(preds, targets) == metric(preds.view(60, 4), targets.view(60))


# --- several labels --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(deadline=None)
@given(seed=seeds, rows=st.integers(1, 40), columns=st.integers(2, 5), tied=st.booleans())
def test_several_labels_are_scored_as_by_scikit_learn(seed: int, rows: int, columns: int, tied: bool):
    preds, targets = drawn(seed, rows, columns, tied), labels(seed, rows, 2, columns)
    for ours, theirs in RANKING:
        each = [defined(theirs, targets[:, c], preds[:, c]) for c in range(columns)]
        assert ours(preds, targets.float()) == pytest.approx(mean_of_defined(each), **EXACT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's of the mean of no labels
        expected = oracle.f1_score(targets, preds > 0, average="macro", zero_division=np.nan)
    assert f1_score(preds, targets) == pytest.approx(expected, **EXACT)


# --- what is undefined -----------------------------------------------------------------------------------------------


def test_a_class_that_is_not_there_is_left_out_of_the_mean():
    preds = torch.tensor([[2.0, 1, 0], [0, 2, 1], [1, 2, 0], [2, 0, 1]])
    targets = torch.tensor([0, 1, 0, 0])
    two = preds[:, :2].softmax(1)  # for the value itself, not the way to it
    assert f1_score(preds, targets) == pytest.approx((0.8 + 2 / 3) / 2)
    assert not math.isnan(roc_auc(preds, targets))
    assert roc_auc(two, targets) == pytest.approx(oracle.roc_auc_score(targets, two[:, 1] - two[:, 0]))


def test_nothing_defined_is_nan():
    only_zeros = torch.zeros(4, dtype=torch.long)
    assert math.isnan(roc_auc(torch.randn(4), only_zeros))
    assert math.isnan(roc_auc(torch.randn(4), only_zeros + 1))
    assert math.isnan(roc_auc(torch.randn(4, 3), only_zeros))
    assert math.isnan(average_precision(torch.randn(4), only_zeros))
    assert average_precision(torch.randn(4), only_zeros + 1) == 1
    assert math.isnan(f1_score(-torch.ones(4), only_zeros))
    assert f1_score(torch.ones(4), only_zeros) == 0
    assert math.isnan(r2_score(torch.ones(1), torch.ones(1)))


@pytest.mark.parametrize("metric", [f1_score, roc_auc, average_precision, r2_score, mse, rmse, mae])
def test_predictions_of_nan_give_nan(metric: Callable[[Tensor, Tensor], float]):
    preds = torch.tensor([0.5, math.nan, -0.5, 1.0])
    assert math.isnan(metric(preds, torch.tensor([0, 1, 0, 1])))
    if metric in (f1_score, roc_auc, average_precision):
        assert math.isnan(metric(preds[:, None].repeat(1, 3), torch.tensor([0, 1, 2, 1])))


# --- regression ------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(seed=seeds, rows=st.integers(2, 60), columns=st.integers(1, 4), offset=st.sampled_from([0.0, 1e6]))
def test_regression_is_scored_as_by_scikit_learn(seed: int, rows: int, columns: int, offset: float):
    targets = drawn(seed, rows, columns, tied=False) + offset
    preds = targets + drawn(seed + 1, rows, columns, tied=False)
    squared = oracle.mean_squared_error(targets, preds)
    assert mse(preds, targets) == pytest.approx(squared, **EXACT)
    assert rmse(preds, targets) == pytest.approx(math.sqrt(squared), **EXACT)
    assert mae(preds, targets) == pytest.approx(oracle.mean_absolute_error(targets, preds), **EXACT)
    assert r2_score(preds, targets) == pytest.approx(oracle.r2_score(targets, preds), **EXACT)
    if columns == 1:
        assert rmse(preds, targets) == pytest.approx(oracle.root_mean_squared_error(targets, preds), **EXACT)
        for metric in (mse, rmse, mae, r2_score):
            assert metric(preds, targets[:, 0]) == metric(preds[:, 0], targets) == metric(preds, targets)


@pytest.mark.parametrize(("preds", "expected"), [([2.0, 2, 2], 1), ([2.0, 2, 3], 0)])
def test_r2_of_equal_targets_is_that_of_scikit_learn(preds: list[float], expected: float):
    assert r2_score(torch.tensor(preds), torch.tensor([2, 2, 2])) == expected == oracle.r2_score([2, 2, 2], preds)


def test_r2_knows_equal_targets_whatever_the_rounding_of_their_mean():
    assert r2_score(torch.full((10,), 0.2).double(), torch.full((10,), 0.1).double()) == 0


def test_float32_predictions_are_summed_in_float64():
    preds = torch.full((3_000_000,), 1.1)
    assert mse(preds, torch.zeros(3_000_000)) == pytest.approx(np.float64(np.float32(1.1)) ** 2, rel=1e-14)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [f1_score, roc_auc, average_precision])
@pytest.mark.parametrize(
    ("preds", "targets", "text"),
    [
        (torch.zeros(4, 3), torch.tensor([0, 1, 3, 2]), "targets contain 3; expected whole numbers from 0 to 2"),
        (torch.zeros(4, 3), torch.tensor([0, -100, 1, 2]), "targets contain -100; expected whole numbers from 0 to 2"),
        (torch.zeros(4), torch.tensor([0, 1, 2, 0]), "targets contain 2; expected whole numbers from 0 to 1"),
        (torch.zeros(4, 2), torch.tensor([0, 1, 2, 0]), "targets contain 2; expected whole numbers from 0 to 1"),
        (torch.zeros(2), torch.tensor([0.0, 0.25]), "targets contain 0.25; expected whole numbers from 0 to 1"),
        (
            torch.zeros(4, 3),
            torch.zeros(4, 2),
            "the model returns (4, 3) for targets (4, 2); expected (n, classes) for (n,), or the same shape",
        ),
    ],
)
def test_targets_that_are_no_labels_are_named(metric: Any, preds: Tensor, targets: Tensor, text: str):
    with pytest.raises(DataError) as raised:
        metric(preds, targets)
    assert str(raised.value) == f"{metric.__name__}: {text}"


@pytest.mark.parametrize("metric", [mse, rmse, mae, r2_score])
def test_regression_needs_as_many_outputs_as_targets(metric: Any):
    with pytest.raises(DataError) as raised:
        metric(torch.zeros(4, 3), torch.zeros(4))
    assert str(raised.value) == (
        f"{metric.__name__}: the model returns (4, 3) for targets (4,); expected one output per target. {metric.__name__} is for "
        'regression (task="regression"); for classes use accuracy, f1_score or roc_auc'
    )


def test_all_of_them_are_over_the_epoch_and_named_after_themselves():
    metrics = [f1_score, roc_auc, average_precision, r2_score, mse, rmse, mae]
    assert all(is_epoch_metric(metric) for metric in metrics)
    names = ["f1_score", "roc_auc", "average_precision", "r2_score", "mse", "rmse", "mae"]
    assert [metric.__name__ for metric in metrics] == names
    assert all(metric.__doc__ for metric in metrics)
