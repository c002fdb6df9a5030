"""EpochScores on a GPU; skipped if there is none."""

from collections.abc import Generator

import pytest
import torch
from torchmetrics import classification

from onecycle.train.epoch_metrics import average_precision, f1_score, rmse, roc_auc
from onecycle.train.metrics import accuracy
from onecycle.train.scores import EpochScores

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def no_waiting() -> Generator[None]:
    """Any wait for the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_taking_in_a_batch_never_waits_for_the_device(no_waiting: None):
    scores = EpochScores([accuracy, f1_score, lambda preds, targets: 0.5], inverse_transform=lambda values: values)
    preds, targets = torch.zeros(8, 4, device="cuda"), torch.zeros(8, dtype=torch.long, device="cuda")
    for _ in range(3):
        scores.add(preds.sum(), preds, targets, 8)
    torch.cuda.set_sync_debug_mode("default")
    assert scores.result()[1:] == [1, 1, 0.5]


def test_values_are_those_of_the_cpu():
    generator = torch.Generator().manual_seed(0)
    preds, targets = torch.randn(500, 4, generator=generator), torch.randint(0, 4, (500,), generator=generator)
    found = {}
    for device in ("cpu", "cuda"):
        scores = EpochScores([accuracy, f1_score, roc_auc, average_precision, classification.MulticlassAUROC(4)])
        for xb, yb in zip(preds.to(device).split(64), targets.to(device).split(64), strict=True):
            scores.add(xb.mean(), xb, yb, len(yb))
        found[device] = scores.result()
    assert found["cuda"] == pytest.approx(found["cpu"], rel=1e-6)
    assert rmse(preds.cuda(), preds.cuda() + 1) == pytest.approx(1)
