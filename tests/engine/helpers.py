"""Learners to compare engines with."""

from typing import Any

import torch
from torch import nn

from conftest import seeded, toy_arrays
from onecycle import DataBunch, Learner, accuracy


def fitted(
    engine: str, model: nn.Module, data: DataBunch | None = None, split: bool = False, **options: Any
) -> Learner:
    data = data or DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=3)
    learn = Learner(data, seeded(model), engine=engine, **{"metrics": accuracy, "silent": True, **options})
    if split:
        learn.split(model.lin2)
    learn.fit_one_cycle(2, slice(1e-3, 1e-2))
    learn.fit(1, 1e-3, wd=0.1)
    return learn


def assert_agree(eager: Learner, fast: Learner) -> None:
    assert fast.engine.captured is not None
    assert fast.recorder.record.batch_losses == eager.recorder.record.batch_losses
    assert fast.recorder.val_losses == eager.recorder.val_losses
    assert fast.recorder.metrics == eager.recorder.metrics
    for a, b in zip(eager.model.state_dict().values(), fast.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
