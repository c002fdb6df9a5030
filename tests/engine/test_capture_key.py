"""The fingerprint of a model changes with what its forward pass may read."""

from typing import Any

import pytest
import torch
from torch import nn

from onecycle.engine.capture_key import capture_key


class Settings:
    def __init__(self) -> None:
        self.rate, self.inner = 0.1, {"depth": [1, 2]}


SCALE = 1.0


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin, self.drop = nn.Linear(2, 2), nn.Dropout(0.1)
        self.register_buffer("mask", torch.ones(2))
        self.sizes, self.settings, self.names = [1, (2, 3)], Settings(), {"a"}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) * SCALE


def doubled(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (preds - targets).sum() * SCALE


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.drop, "p", 0.2),
        lambda model: model.lin.weight.requires_grad_(False),
        lambda model: setattr(model, "mask", torch.ones(2)),
        lambda model: setattr(model.lin, "weight", nn.Parameter(torch.ones(2, 2))),
        lambda model: model.sizes.append(4),
        lambda model: model.settings.inner["depth"].append(3),
        lambda model: setattr(model.settings, "rate", 0.2),
        lambda model: model.names.add("b"),
        lambda model: model.eval(),
    ],
)
def test_it_changes_with(change: Any):
    model = Model()
    before = capture_key(model)
    assert capture_key(model) == before
    change(model)
    assert capture_key(model) != before


def test_it_changes_with_globals_and_closures(monkeypatch: pytest.MonkeyPatch):
    model, box = Model(), [1]

    def closes(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return preds.sum() * box[0]

    before = capture_key(model, closes)
    box[0] = 2
    assert capture_key(model, closes) != before
    for functions, owner in (((), Model.forward), ((doubled,), doubled)):
        before = capture_key(model, *functions)
        monkeypatch.setitem(owner.__globals__, "SCALE", owner.__globals__["SCALE"] + 1)
        assert capture_key(model, *functions) != before


def test_it_does_not_change_with_training():
    model = Model()
    before = capture_key(model, nn.CrossEntropyLoss())
    opt = torch.optim.SGD(model.parameters(), 0.1)
    model(torch.ones(1, 2)).sum().backward()
    opt.step()
    assert capture_key(model, nn.CrossEntropyLoss())[:2] == before[:2]


def test_a_model_that_holds_itself_in_a_list_is_no_trap():
    model = Model()
    model.sizes.append(model.sizes)
    assert capture_key(model) == capture_key(model)
