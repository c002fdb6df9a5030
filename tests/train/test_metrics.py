import pickle
from functools import partial
from typing import Any

import pytest
import torch
import torchmetrics
from torch import Tensor
from torchmetrics import classification

from onecycle.train.epoch_metrics import f1_score, r2_score, roc_auc
from onecycle.train.metrics import (
    accuracy,
    error_rate,
    is_over_the_epoch,
    mean_absolute_error,
    mean_squared_error,
    metric_name,
    over_the_epoch,
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


marked_spread = over_the_epoch(spread)


def test_a_function_is_marked_without_being_changed():
    assert (marked_spread.__name__, marked_spread.__doc__) == ("spread", "The range of the predictions.")
    assert is_over_the_epoch(marked_spread)
    assert is_over_the_epoch(partial(marked_spread, scale=2.0))
    assert not is_over_the_epoch(spread)
    assert marked_spread(torch.tensor([1.0, 3.0]), torch.zeros(2), scale=2.0) == 4


def test_anything_callable_can_be_marked():
    auroc = over_the_epoch(partial(torchmetrics.functional.auroc, task="multiclass", num_classes=4))
    assert (metric_name(auroc), is_over_the_epoch(auroc)) == ("auroc", True)
    assert not is_over_the_epoch(torchmetrics.functional.auroc)


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
