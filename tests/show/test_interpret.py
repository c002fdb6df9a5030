"""The errors of a regression: which rows are shown, and what the record keeps of many."""

import json

import numpy as np
import pytest
import torch

from onecycle import MLP, DataBunch, Learner
from onecycle.errors import DataError
from onecycle.show.interpret import RegressionInterpretation, plot_predictions, summarize_errors


def test_the_largest_errors_come_first() -> None:
    actual = np.array([1.0, 2.0, 3.0, 4.0])
    found = RegressionInterpretation(np.array([[1.0], [5.0], [2.0], [4.1]]), actual, ["price"])
    rows, columns = found.top_errors(3)
    assert (rows.tolist(), columns.tolist()) == ([1, 2, 3], [0, 0, 0])
    summary = found.summary(k=1)
    assert summary["top_errors"] == [{"row": 1, "target": "price", "actual": 2.0, "predicted": 5.0}]
    assert (summary["targets"], summary["actual"], summary["predicted"]) == (
        *(["price"], [actual.tolist()], [[1.0, 5.0, 2.0, 4.1]]),
    )


def test_several_targets_are_compared_by_their_spread() -> None:
    actual = np.stack([np.arange(10.0), 1000 * np.arange(10.0)], 1)
    predicted = actual.copy()
    predicted[3, 0] += 2
    predicted[5, 1] += 1000
    rows, columns = RegressionInterpretation(predicted, actual).top_errors(2)
    assert [*zip(rows, columns, strict=True)] == [(3, 0), (5, 1)]


def test_nan_is_the_largest_error() -> None:
    rows, _ = RegressionInterpretation(np.array([1.0, np.nan, 30.0]), np.array([1.0, 2.0, 3.0])).top_errors(1)
    assert rows.tolist() == [1]


def test_of_many_rows_some_are_kept() -> None:
    actual = np.arange(100_000.0)
    summary = RegressionInterpretation(actual, actual).summary()
    [kept] = summary["actual"]
    assert (len(kept), kept[0], kept[-1]) == (500, 0.0, 99_999.0)
    assert len(json.dumps(summary)) < 20_000
    [ax] = plot_predictions(summary).axes
    assert ax.get_xlabel() == "target 0, actual"


def test_of_a_learner() -> None:
    x = torch.randn(64, 3)
    data = DataBunch.create((x, x.sum(1)), (x[:10], x[:10].sum(1)), bs=16, device="cpu", seed=0)
    learn = Learner(data, MLP(3, 1), silent=True)
    predicted, _ = learn.get_preds()
    found = summarize_errors(learn)
    assert found["predicted"][0] == pytest.approx(predicted.reshape(-1).tolist())
    assert found["actual"][0] == pytest.approx(x[:10].sum(1).tolist())
    labels = DataBunch.create((x, (x[:, 0] > 0).long()), (x[:10], (x[:10, 0] > 0).long()), device="cpu", seed=0)
    learn = Learner(labels, MLP(3, 2), silent=True)
    assert "confusion_matrix" in summarize_errors(learn)
    with pytest.raises(DataError, match="the valid set has no values to compare predictions with"):
        RegressionInterpretation.from_learner(learn)


@pytest.mark.parametrize("shapes", [((3,), (2,)), ((0,), (0,)), ((2, 2), (2,))])
def test_what_does_not_go_together(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(DataError, match="expected equal sizes of at least 1"):
        RegressionInterpretation(*map(np.ones, shapes))
