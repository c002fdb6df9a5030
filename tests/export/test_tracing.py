"""Models that torch.export cannot trace, or that do not compute the same for every number of rows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conftest import Net, toy_arrays
from onecycle import DataBunch, Learner, load_predictor
from onecycle.errors import ModelError

pytestmark = pytest.mark.slow


def learner(model: nn.Module) -> Learner:
    data = DataBunch.create(toy_arrays(), toy_arrays(), bs=16, seed=3, device="cpu")
    learn = Learner(data, model, silent=True)
    learn.fit(1, 1e-2)
    return learn


class Noise(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.rand(1, device=x.device)


class ByValue(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class ByCount(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (1 if x.shape[0] > 2 else 2)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Noise, "it calls aten.rand.default, which is none of the operators that a program may call"),
        (ByValue, "torch.export cannot follow it"),
        (ByCount, "."),
    ],
)
def test_what_cannot_be_traced_is_written_as_weights_and_said(here: Path, make: Any, reason: str):
    learn = learner(make())
    with pytest.warns(
        UserWarning, match=f"b: only the weights of {make.__name__} are written, .*class: .*{reason}"
    ) as said:
        learn.export("b")
    assert "\n" not in str(said[0].message)
    assert said[0].filename == __file__
    with pytest.raises(
        ModelError, match=rf"holds a {make.__name__}, whose code is not in the bundle; .*model={make.__name__}"
    ):
        load_predictor("b")
    load_predictor("b", make)
