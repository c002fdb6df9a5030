"""Optimizers that keep state in other shapes than tensors by parameter: exactly as it was, or refused at the first step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from durability.resume_cases import CASES, Base, Stop, made, plain_and_resumed
from onecycle import Callback, Learner
from onecycle.errors import SettingError

KINDS = [
    *("numbers in groups", "an estimated distance", "float64 state", "half and complex state", "infinite values"),
    *("lists of gradients", "global state", "attributes of the optimizer", "a lookahead around adam"),
    "a subclass of Adam with more",
]


def everything(learn: Learner) -> dict[str, Any]:
    """Weights, and what the optimizer holds: state by the names of parameters, groups, attributes."""
    assert learn.opt is not None
    opt: Any = learn.opt.torch_opt
    names = {p: name for name, p in learn.model.named_parameters()}
    return {
        "weights": dict(learn.model.state_dict()),
        "state": {names.get(key, key): value for key, value in opt.state.items()},
        "groups": [{key: value for key, value in group.items() if key != "params"} for group in opt.param_groups],
        "attributes": [getattr(opt, name, None) for name in ("t", "k", "anchor")],
    }


def assert_equal(found: Any, expected: Any, place: str = "") -> None:
    assert type(found) is type(expected), place
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype, place
        assert torch.equal(found, expected), place
    elif isinstance(expected, dict):
        assert sorted(found, key=repr) == sorted(expected, key=repr), place
        for key in expected:
            assert_equal(found[key], expected[key], f"{place}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), place
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert_equal(a, b, f"{place}.{i}")
    else:
        assert repr(found) == repr(expected), place


@pytest.fixture(autouse=True)
def stop():
    yield
    Stop.at = None


@pytest.mark.parametrize("at", [5, 13, 17])
@pytest.mark.parametrize("name", KINDS)
def test_it_is_resumed_exactly(name: str, at: int, tmp_path: Path):
    plain, resumed = plain_and_resumed(name, at, tmp_path)
    assert_equal(everything(resumed), everything(plain))


@pytest.mark.parametrize("name", KINDS)
def test_it_is_saved_and_loaded_exactly(name: str, tmp_path: Path):
    first = made(name)
    first.fit(1, 1e-2)
    first.save(tmp_path / "a")
    loaded = made(name)
    loaded.load(tmp_path / "a")
    first.fit(1, 1e-2)
    loaded.fit(1, 1e-2)
    assert_equal(everything(loaded), everything(first))


@pytest.mark.parametrize("name", ["numbers in groups", "lists of gradients", "global state"])
def test_a_longer_fit_goes_on(name: str, tmp_path: Path):
    plain, extended = made(name), made(name)
    plain.fit(1, 1e-2)
    plain.fit(1, 1e-2)
    extended.fit(1, 1e-2, checkpoint=tmp_path)
    Stop.at = 20
    extended.extend(1)
    Stop.at, resumed = None, made(name)
    resumed.resume(tmp_path)
    assert_equal(everything(resumed)["weights"], everything(plain)["weights"])


def test_settings_of_a_loaded_optimizer_are_its_own(tmp_path: Path):
    """What the optimizer itself changed comes back; what the user set, in groups or as attributes, does not."""

    class Scaled(Base):
        def __init__(self, params: Any, lr: float = 1e-3, scale: float = 1.0) -> None:
            super().__init__(params, lr, eps=scale, k=0)
            self.scale, self.count = scale, 0

        def before(self, group: dict[str, Any]) -> None:
            group["k"] += 1
            self.count += 1

    CASES["scaled"] = lambda: {"opt_func": Scaled}
    first, other = made("scaled"), made("scaled")
    first.fit(1, 1e-2)
    first.save(tmp_path / "a")
    other.opt_func = lambda params: Scaled(params, scale=2.0)
    other.load(tmp_path / "a")
    opt: Any = other.opt.torch_opt if other.opt else None
    assert (opt.scale, opt.count, opt.param_groups[0]["k"], opt.param_groups[0]["eps"]) == (2.0, 24, 12, 2.0)


def test_state_of_a_frozen_layer_is_kept(tmp_path: Path):
    class Freezes(Callback):
        def on_epoch_begin(self, fit: Any) -> None:
            for p in fit.model.layers[0].parameters():
                p.requires_grad_(fit.epoch != 1)

    for name in ("numbers in groups", "lists of gradients", "infinite values"):
        CASES["frozen"] = lambda name=name: CASES[name]() | {"callbacks": [Freezes()]}
        plain = made("frozen")
        plain.fit(3, 1e-2)
        Stop.at = 20
        made("frozen").fit(3, 1e-2, checkpoint=tmp_path / name)
        Stop.at, resumed = None, made("frozen")
        resumed.resume(tmp_path / name)
        assert_equal(everything(resumed), everything(plain))


def test_a_replaced_layer_begins_anew_and_the_others_go_on(tmp_path: Path):
    class Replaces(Callback):
        def on_epoch_begin(self, fit: Any) -> None:
            if fit.epoch == 1:
                torch.manual_seed(5)
                fit.model.layers[-1] = nn.Linear(8, 4)

    CASES["replaced"] = lambda: CASES["lists of gradients"]() | {"callbacks": [Replaces()]}
    plain = made("replaced")
    plain.fit(3, 1e-2)
    Stop.at = 20
    made("replaced").fit(3, 1e-2, checkpoint=tmp_path)
    Stop.at, resumed = None, made("replaced")
    resumed.resume(tmp_path)
    assert_equal(everything(resumed), everything(plain))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "0/odd is of type object"),
        (torch.eye(3).to_sparse(), "0/odd is a tensor of another kind"),
        (np.array(["2020-01-01"], "M8[D]"), "0/odd is an array of datetime64"),
    ],
)
def test_what_cannot_be_saved_is_refused_at_the_first_step(value: Any, message: str, tmp_path: Path):
    class Odd(Base):
        def scaled(self, p: Any, state: dict[str, Any], group: dict[str, Any]) -> Any:
            state["odd"] = value
            return p.grad

    CASES["odd"] = lambda: {"opt_func": Odd}
    learn = made("odd")
    with pytest.raises(SettingError, match=f"the state of the optimizer Odd cannot be saved exactly: {message}"):
        learn.fit(2, 1e-2, checkpoint=tmp_path)
    assert len(learn.recorder.losses) <= 1
    made("odd").fit(1, 1e-2)  # without checkpoints it trains
