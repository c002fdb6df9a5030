"""The reference runs (fastai 1.0.61, torch 2.13.0, one thread), rebuilt from inputs made here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Net
from onecycle import DataBunch, Learner, accuracy, mnist

GOLDEN = Path(__file__).parents[1] / "golden"
CALLS = {
    "fit_constant": lambda learn: learn.fit(2, 3e-3),
    "one_cycle_default": lambda learn: learn.fit_one_cycle(1, 1e-2),
    "one_cycle_three_epochs": lambda learn: learn.fit_one_cycle(
        3, 3e-3, moms=(0.9, 0.8), div_factor=10.0, pct_start=0.4, wd=0.1
    ),
    "lr_find_default": lambda learn: learn.lr_find(),
}


@pytest.fixture(scope="module")
def data() -> DataBunch:
    whole = mnist()
    (x, y), (xv, yv) = whole.train_ds.tensors, whole.valid_ds.tensors
    bunch = DataBunch.create((x[:3200], y[:3200]), (xv[:1000], yv[:1000]))
    bunch.train_dl.shuffle = False
    return bunch


def net(seed: int) -> Net:
    model = Net(784, 50, 10)
    random = np.random.RandomState(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            bound = 1 / np.sqrt(784 if name.startswith("lin1") else 50)
            parameter.copy_(torch.from_numpy(random.uniform(-bound, bound, parameter.shape).astype(np.float32)))
    return model


@pytest.mark.parametrize("run", CALLS)
def test_reference_run(run: str, data: DataBunch):
    golden: dict[str, Any] = json.loads((GOLDEN / f"{run}.json").read_text())
    learn = Learner(data, net(golden["weight_seed"]), loss_func=nn.CrossEntropyLoss(), metrics=accuracy, silent=True)
    CALLS[run](learn)
    recorder = learn.recorder
    assert recorder.lrs == pytest.approx(golden["lrs"], rel=1e-12)
    assert recorder.moms == pytest.approx(golden["moms"], rel=1e-12)
    assert recorder.losses == pytest.approx(golden["smooth_losses"], rel=1e-4)
    validated = [loss for loss in golden["valid_losses"] if loss is not None]
    assert [loss for loss in recorder.val_losses if loss is not None] == pytest.approx(validated, rel=1e-4)
    for found, expected in zip(recorder.metrics, golden["metrics"], strict=False):
        assert found == pytest.approx(expected, abs=2e-3)
    for name, parameter in learn.model.named_parameters():
        expected = golden["final"][name]
        assert parameter.double().square().sum().item() == pytest.approx(expected["sumsq"], rel=1e-3)
        assert parameter.flatten()[:5].tolist() == pytest.approx(expected["head"], abs=1e-3)
