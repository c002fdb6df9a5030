"""What the interpretations of classifiers and regressions count, and what the record gets of it."""

import json

import numpy as np
import pytest
import torch

from conftest import Net, seeded, toy_arrays
from onecycle import MLP, ClassificationInterpretation, DataBunch, Learner, Record, accuracy, error_rate
from onecycle.errors import DataError
from onecycle.show.interpret import RegressionInterpretation, plot_predictions, summarize_errors


@pytest.fixture
def learn(toy: DataBunch) -> Learner:
    learner = Learner(toy, seeded(Net()), metrics=[accuracy, error_rate], silent=True)
    learner.fit_one_cycle(2, 1e-2)
    return learner


def test_an_interpretation_counts_the_mistakes(learn: Learner):
    found = ClassificationInterpretation.from_learner(learn)
    probs, targets = learn.get_preds()
    matrix = found.confusion_matrix()
    assert matrix.sum() == 50
    assert matrix.trace() / 50 == pytest.approx(learn.validate()[1])
    wrong = [(int(t), int(p)) for t, p in zip(targets, probs.argmax(1), strict=True) if t != p]
    assert sum(n for _, _, n in found.most_confused()) == len(wrong)
    losses, rows = found.top_losses(3)
    assert losses[0] == pytest.approx(max(-probs[i, t].log().item() for i, t in enumerate(targets)), rel=1e-4)
    assert targets[rows[0]] in found.classes
    found.plot_confusion_matrix()
    assert len(found.plot_top_losses(4).axes) >= 4
    summary = found.summary()
    assert len(summary["top_losses"]) == 12
    assert Record.from_json(Record(mistakes=summary).to_json()).mistakes == summary


def test_images_go_into_the_record_as_pixels():
    probs = np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32)
    x = np.linspace(0, 1, 128, dtype=np.float32).reshape(2, 64)
    found = ClassificationInterpretation(probs, np.array([0, 0]), ["cat", "dog"], x)
    image = found.summary()["top_losses"][0]["image"]
    assert (len(image), len(image[0]), min(map(min, image)), max(map(max, image))) == (8, 8, 0, 255)
    assert found.most_confused() == [("cat", "dog", 1)]


def test_a_right_row_among_the_highest_losses_is_not_called_a_mistake():
    probs = np.array([[0.9, 0.1], [0.19, 0.81]], dtype=np.float32)
    found = ClassificationInterpretation(probs, np.array([1, 1]), ["cat", "dog"], np.ones((2, 64)))
    titles = [ax.get_title() for ax in found.plot_top_losses().axes][:2]
    assert titles == ["cat, not dog\nloss 2.30", "dog, right, p 0.81\nloss 0.21"]


def test_a_regression_has_no_confusion_matrix():
    x, _ = toy_arrays()
    learner = Learner(DataBunch.create((x, x[:, 0]), (x, x[:, 0]), bs=16), Net(outputs=1), silent=True)
    with pytest.raises(DataError, match="the valid set has no class labels"):
        ClassificationInterpretation.from_learner(learner)


def test_probabilities_that_do_not_belong_to_the_targets():
    with pytest.raises(DataError, match=r"probs has shape \(2, 2\) for 3 targets up to 1"):
        ClassificationInterpretation(np.ones((2, 2)), np.array([0, 1, 1]), [0, 1])
    with pytest.raises(DataError, match="probs are not probabilities"):
        ClassificationInterpretation(np.ones((3, 2)), np.array([0, 1, 1]), [0, 1])


# --- regression -----------------------------------------------------------------------------------------------------


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
