import doctest
import pickle
from functools import partial
from typing import Any

import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torchmetrics import classification

from onecycle import DataBunch, EarlyStopping, Learner
from onecycle.errors import DataError, SettingError
from onecycle.train import epoch_metrics, metrics
from onecycle.train.epoch_metrics import f1_score, r2_score, roc_auc
from onecycle.train.metrics import (
    accuracy,
    epoch_metric,
    error_rate,
    is_epoch_metric,
    mean_absolute_error,
    mean_squared_error,
    metric_name,
    metric_names,
    root_mean_squared_error,
    top_k_accuracy,
)


def test_metrics_of_a_batch_are_means_over_its_rows():
    preds = torch.tensor([[0.1, 0.7, 0.2], [0.8, 0.1, 0.1], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3]])
    targets = torch.tensor([1, 1, 2, 0])
    assert accuracy(preds, targets) == 0.5
    assert error_rate(preds, targets) == 0.5
    assert top_k_accuracy(preds, targets, k=2) == 0.75
    values, wanted = torch.tensor([[1.0], [3.0]]), torch.tensor([2.0, 5.0])
    assert mean_squared_error(values, wanted) == 2.5
    assert mean_absolute_error(values, wanted) == 1.5
    assert root_mean_squared_error(values, wanted) == pytest.approx(2.5**0.5)


def spread(preds: Tensor, targets: Tensor, scale: float = 1.0) -> float:
    """The range of the predictions."""
    return scale * (preds.max() - preds.min()).item()


marked_spread = epoch_metric(spread)


@pytest.mark.parametrize("module", [metrics, epoch_metrics])
def test_examples_in_docstrings(module: Any):
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted >= 5
    assert result.failed == 0


def test_a_function_is_marked_without_being_changed():
    assert (marked_spread.__name__, marked_spread.__doc__) == ("spread", "The range of the predictions.")
    assert is_epoch_metric(marked_spread)
    assert is_epoch_metric(partial(marked_spread, scale=2.0))
    assert not is_epoch_metric(spread)
    assert marked_spread(torch.tensor([1.0, 3.0]), torch.zeros(2), scale=2.0) == 4


def test_anything_callable_can_be_marked():
    auroc = epoch_metric(partial(torchmetrics.functional.auroc, task="multiclass", num_classes=4))
    assert (metric_name(auroc), is_epoch_metric(auroc)) == ("auroc", True)
    assert not is_epoch_metric(torchmetrics.functional.auroc)


def test_marked_functions_can_be_pickled():
    for metric in (f1_score, partial(f1_score), partial(top_k_accuracy, k=2)):
        assert metric_name(pickle.loads(pickle.dumps(metric))) == metric_name(metric)


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (accuracy, "accuracy"),
        (partial(top_k_accuracy, k=3), "top_k_accuracy"),
        (roc_auc, "roc_auc"),
        (partial(r2_score), "r2_score"),
        (classification.BinaryF1Score(), "BinaryF1Score"),
        (torchmetrics.F1Score(task="multiclass", num_classes=3), "MulticlassF1Score"),
        (torchmetrics.R2Score(), "R2Score"),
    ],
)
def test_names_of_columns(metric: Any, name: str):
    assert metric_name(metric) == name


def score(preds: Tensor, targets: Tensor, k: int = 1) -> float:
    return 0.25 * k


class Score:
    def __call__(self, preds: Tensor, targets: Tensor) -> float:
        return 0.5


def test_names_of_several_columns_are_different(toy: DataBunch):
    named = partial(score, k=3)
    named.__name__ = "mine"  # pyright: ignore[reportAttributeAccessIssue] -- a partial takes any

    def valid_loss(preds: Tensor, targets: Tensor) -> float:
        return 9.0

    by_name: dict[str, Any] = {
        "score(k=1)": partial(score, k=1),
        "score(k=2)": partial(score, k=2),
        "mine": named,
        "score": score,
        "<lambda>": lambda preds, targets: 0.1,
        "<lambda>_2": lambda preds, targets: 0.2,
        "Score": Score(),
        "Score_2": Score(),
        "score(k=4)": epoch_metric(partial(score, k=4)),
        "valid_loss_2": valid_loss,
    }
    assert metric_names([*by_name.values()]) == [*by_name]
    assert metric_names([partial(score, k=2)]) == ["score"]
    assert metric_names([score, score]) == ["score", "score_2"]
    learn = Learner(toy, nn.Linear(20, 4), metrics=[*by_name.values()], silent=True)
    learn.fit(1, 1e-2, callbacks=EarlyStopping("mine", patience=1, mode="max"))
    record = learn.recorder.record
    assert record.metric_names == [*by_name]
    found = dict(zip(record.metric_names, record.metrics[-1], strict=True))
    assert (found["score(k=2)"], found["mine"], found["valid_loss_2"]) == (0.5, 0.75, 9)
    assert record.val_losses[-1] < 9


@pytest.mark.parametrize("metric", [accuracy, error_rate, top_k_accuracy])
@pytest.mark.parametrize(
    ("preds", "targets"),
    [
        (torch.rand(4, 1), torch.rand(4)),  # a regression, where the one output is always the highest
        (torch.rand(4, 1), torch.rand(4, 1)),
        (torch.rand(4), torch.rand(4)),
        (torch.rand(4, 3), torch.rand(4, 3)),  # several targets, or labels
        (torch.rand(4, 3), torch.ones(4, 3, dtype=torch.long)),
        (torch.rand(1, 1), torch.rand(1)),
    ],
)
def test_metrics_of_classes_refuse_values(metric: Any, preds: Tensor, targets: Tensor):
    kind = str(targets.dtype).removeprefix("torch.")
    with pytest.raises(SettingError) as raised:
        metric(preds, targets)
    assert str(raised.value) == (
        f"{metric.__name__}: the model returns {tuple(preds.shape)} for targets {tuple(targets.shape)} of {kind}; "
        f"{metric.__name__} is for classes, with outputs (n, classes) for labels (n,). For regression use rmse, mae or "
        "r2_score, for a single output or several labels of 0 and 1 f1_score, roc_auc or average_precision"
    )


def test_labels_of_classes_may_be_floats_and_stand_in_several_dimensions():
    preds, labels = torch.eye(4), torch.arange(4)
    for targets in (labels, labels.float(), labels[:, None]):
        assert accuracy(preds, targets) == 1
    assert accuracy(preds.expand(5, 4, 4), labels.expand(5, 4).contiguous()) == 1
    assert accuracy(preds[:, :1], torch.zeros(4, dtype=torch.long)) == 1  # a single class


@pytest.mark.parametrize("metric", [mean_squared_error, mean_absolute_error, root_mean_squared_error])
def test_metrics_of_values_refuse_classes(metric: Any):
    name = metric.__name__
    with pytest.raises(DataError) as raised:
        metric(torch.rand(64, 4), torch.ones(64, dtype=torch.long))
    assert str(raised.value) == (
        f"{name}: the model returns (64, 4) for targets (64,); expected one output per target. {name} is for regression "
        '(task="regression"); for classes use accuracy, f1_score or roc_auc'
    )
