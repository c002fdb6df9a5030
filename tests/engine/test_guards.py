"""Guards notice what a step reads and what its modules consist of."""

from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from onecycle.engine.follow import Follower
from onecycle.engine.guards import Guards
from onecycle.engine.trace import CannotCaptureError


class Settings:
    kind = "a"

    def __init__(self) -> None:
        self.rate, self.inner = 0.1, {"depth": [1, 2]}


SCALE = 1.0


class Model(nn.Module):
    factor = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.drop = nn.Linear(2, 2), nn.Dropout(0.1)
        self.register_buffer("mask", torch.ones(2))
        self.sizes, self.settings, self.names = [1, (2, 3)], Settings(), {"a"}
        self.weights, self.recent = np.ones(2), deque([1.0], maxlen=3)
        self.unread = 0

    @property
    def twice(self) -> float:
        return 2 * self.factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.lin(x)) * self.mask * SCALE * self.twice
        if self.sizes[0] == 1 and "a" in self.names and self.settings.kind == "a":
            x = x * self.settings.rate * self.settings.inner["depth"][0]
        return x * self.weights[0] * self.recent[-1]


def doubled(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (preds - targets).sum() * SCALE


def followed(*functions: Any) -> Guards:
    """Call the functions under a Follower, the first with a tensor, the others with two; return the guards."""
    follower = Follower(*functions)
    with follower.following():
        follower.call(functions[0], torch.ones(1, 2))
        for function in functions[1:]:
            follower.call(function, torch.ones(1, 2), torch.ones(1, 2))
    return follower.guards


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model.drop, "p", 0.2),
        lambda model: model.lin.weight.requires_grad_(False),
        lambda model: setattr(model, "mask", torch.ones(2)),
        lambda model: setattr(model.lin, "weight", nn.Parameter(torch.ones(2, 2))),
        lambda model: setattr(model.lin.weight, "data", torch.ones(3, 2)),
        lambda model: setattr(model, "more", nn.Linear(1, 1)),
        lambda model: setattr(model.drop, "forward", lambda x: x),
        lambda model: setattr(model, "factor", 3.0),  # hides the attribute of the class
        lambda model: model.sizes.append(4),
        lambda model: model.settings.inner["depth"].append(3),
        lambda model: setattr(model.settings, "rate", 0.2),
        lambda model: setattr(model.settings, "kind", "b"),
        lambda model: model.names.add("b"),
        lambda model: model.recent.append(2.0),
        lambda model: model.weights.fill(3),
        lambda model: model.eval(),
        lambda model: model.lin.register_forward_hook(lambda *_: None),
        lambda model: model.lin.weight.register_hook(lambda grad: grad),
    ],
)
def test_a_change_is_noticed(change: Any):
    model = Model()
    guards = followed(model)
    assert guards.changed() is None
    change(model)
    assert guards.changed() is not None


@pytest.mark.parametrize(("owner", "name"), [(Model, "factor"), (Settings, "kind"), (Model, "twice")])
def test_a_change_of_a_class_is_noticed(owner: type, name: str, monkeypatch: pytest.MonkeyPatch):
    guards = followed(Model())
    monkeypatch.setattr(owner, name, 5.0)
    assert guards.changed() == f"{owner.__name__}.{name}"


def test_a_change_of_globals_and_closures_is_noticed(monkeypatch: pytest.MonkeyPatch):
    model, box = Model(), [1]

    def closes(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return preds.sum() * box[0]

    guards = followed(nn.Linear(2, 2), closes)
    box[0] = 2
    assert guards.changed() == f"box of {closes.__qualname__}"
    for functions in ((model,), (nn.Linear(2, 2), doubled)):
        guards = followed(*functions)
        with monkeypatch.context() as patch:
            patch.setitem(globals(), "SCALE", 2.0)
            assert guards.changed() == "the global SCALE"
        assert guards.changed() is None


@pytest.mark.parametrize("default", [torch.float64])
def test_a_setting_of_torch_is_noticed(default: torch.dtype):
    guards = followed(Model())
    torch.set_default_dtype(default)
    try:
        assert guards.changed() == "a setting of torch"
    finally:
        torch.set_default_dtype(torch.float32)


def test_training_changes_no_guard():
    model, loss = Model(), nn.MSELoss()
    guards = followed(model, loss)
    opt = torch.optim.SGD(model.parameters(), 0.1)
    model(torch.ones(1, 2)).sum().backward()
    opt.step()
    model.unread += 1
    assert guards.changed() is None


def test_an_equal_value_of_another_type_is_a_change():
    model = Model()
    guards = followed(model)
    model.settings.inner["depth"][0] = True
    assert guards.changed() is not None


@pytest.mark.parametrize("value", [iter([1]), list(range(2000)), np.ones(100_000), torch.Generator()])
def test_what_may_change_unseen_is_refused(value: Any):
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if self.value is None else 2 * x

    with pytest.raises(CannotCaptureError, match=r"Reads.forward reads Reads.value, .* \(test_guards.py:\d+\)"):
        followed(Reads())


def test_a_model_that_holds_itself_in_a_list_is_refused_and_no_trap():
    model = Model()
    model.sizes.append(model.sizes)
    with pytest.raises(CannotCaptureError, match="nested too deeply"):
        followed(model)
