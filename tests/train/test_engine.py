"""The fast engine gives the eager engine's losses, never captures twice, and steps back where it must."""

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

from conftest import Net, seeded, toy_arrays
from onecycle import Callback, DataBunch, GradientClip, Learner, accuracy
from onecycle.core.errors import SettingError
from onecycle.train import capture
from onecycle.train.capture import Captured


class Everything(nn.Module):
    """A convolution, BatchNorm, dropout, a parameter of its own, a tied one and one that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv1d(1, 3, 3), nn.BatchNorm1d(3)
        self.scale = nn.Parameter(torch.ones(3, 1))
        self.lin1, self.lin2 = nn.Linear(54, 54), nn.Linear(54, 54)
        self.lin2.weight = self.lin1.weight
        self.head, self.unused = nn.Linear(54, 4), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = (self.bn(self.conv(x[:, None])) * self.scale).flatten(1)
        return self.head(F.dropout(self.lin2(F.gelu(self.lin1(x))), 0.2, self.training))


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
    assert fast._engine._captured is not None
    assert fast.recorder.record.batch_losses == pytest.approx(eager.recorder.record.batch_losses, rel=1e-4)
    assert fast.recorder.val_losses == pytest.approx(eager.recorder.val_losses, rel=1e-4)
    for a, b in zip(eager.model.state_dict().values(), fast.model.state_dict().values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"true_wd": False, "bn_wd": False},
        {"opt_func": SGD, "split": True},
        {"opt_func": partial(SGD, momentum=0.9), "true_wd": False},
        {"split": True, "bn_wd": False},
        {"callbacks": GradientClip(0.05), "opt_func": SGD},
        {"loss_func": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0, 4.0]), label_smoothing=0.1)},
        {"loss_func": partial(F.multi_margin_loss, p=2)},
    ],
)
def test_engines_agree(options: dict[str, Any]):
    assert_agree(fitted("eager", Net(), **options), fitted("fast", Net(), **options))


def test_engines_agree_with_dropout_norms_and_tied_weights():
    assert_agree(fitted("eager", Everything()), fitted("fast", Everything()))


def test_engines_agree_on_regression():
    x, _ = toy_arrays()
    data = DataBunch.create((x, x.sum(1)), (x, x.sum(1)), bs=16, seed=0)
    assert_agree(*(fitted(engine, Net(outputs=1), data, metrics=None) for engine in ("eager", "fast")))


def test_engines_agree_on_several_inputs_of_which_one_is_whole_numbers():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb, self.lin1, self.lin2 = nn.Embedding(10, 3), nn.Linear(23, 8), nn.Linear(8, 4)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.lin2(torch.relu(self.lin1(torch.cat([a, self.emb(b)], 1))))

    x, y = toy_arrays()
    data = DataBunch.create((x, torch.arange(200) % 10, y), (x, torch.arange(200) % 10, y), bs=16, seed=0)
    assert_agree(fitted("eager", Two(), data), fitted("fast", Two(), data))


def test_a_short_last_batch_goes_through_eagerly():
    dataset = torch.utils.data.TensorDataset(*toy_arrays())
    data = DataBunch(torch.utils.data.DataLoader(dataset, 48), torch.utils.data.DataLoader(dataset, 48))
    fast = fitted("fast", Net(), data)
    assert len(fast.recorder.losses) == 5
    assert_agree(fitted("eager", Net(), data), fast)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each trace."""
    counted: list[int] = []
    trace = capture._trace
    monkeypatch.setattr(capture, "_trace", lambda *args: counted.append(1) or trace(*args))
    return counted


def test_it_captures_once(captures: list[int]):
    learn = fitted("fast", Net())
    learn.fit(3, 1e-3)
    learn.lr_find()
    learn.fit_one_cycle(1, 1e-3)
    assert len(captures) == 1


def test_it_captures_again_when_the_model_changes(captures: list[int], toy: DataBunch):
    learn = Learner(toy, seeded(Net()), engine="fast", silent=True)
    learn.split(learn.model.lin2)
    learn.freeze()
    before = learn.model.lin1.weight.clone()
    learn.fit(2, 1e-2)
    assert torch.equal(learn.model.lin1.weight, before)
    learn.unfreeze()
    learn.fit(1, 1e-2)
    assert not torch.equal(learn.model.lin1.weight, before)
    assert len(captures) == 2
    learn.loss_func = nn.MultiMarginLoss()
    learn.fit(1, 1e-2)
    assert len(captures) == 3


def test_capturing_leaves_no_trace(toy: DataBunch):
    model = seeded(Everything()).train()
    before = [value.clone() for value in model.state_dict().values()]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    Captured(model, nn.CrossEntropyLoss(), *toy.one_batch())
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_without_torchscript_the_generated_python_does_the_same(monkeypatch: pytest.MonkeyPatch):
    eager = fitted("eager", Everything())
    monkeypatch.delattr(torch.jit, "trace")
    assert_agree(eager, fitted("fast", Everything()))


class Branches(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Counts(Net):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return super().forward(x)


class Draws(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * (1 + 0 * random.random()))


class DrawsWithNumPy(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * (1 + 0 * np.random.rand()))


def hooked() -> Net:
    model = Net()
    model.lin1.register_forward_hook(lambda *_: None)
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Branches(), "torch cannot trace it ("),
        (Counts(), "its forward pass counts, or draws from Python's or NumPy's generator"),
        (Draws(), "its forward pass counts, or draws from Python's or NumPy's generator"),
        (DrawsWithNumPy(), "its forward pass counts, or draws from Python's or NumPy's generator"),
        (hooked(), "module lin1 has hooks"),
    ],
)
def test_what_cannot_be_captured_stays_eager_and_says_why_once(
    model: Net, reason: str, capsys: pytest.CaptureFixture[str], toy: DataBunch
):
    expected = Learner(toy, seeded(model), engine="eager", silent=True)
    expected.fit(2, 1e-2)
    learn = Learner(toy, seeded(model), engine="fast")
    learn.fit(2, 1e-2)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("engine:")]
    assert len(lines) == 1
    assert lines[0].startswith(f"engine: eager, because {reason}")
    assert learn.recorder.losses == expected.recorder.losses


def test_what_cannot_be_captured_is_tried_once_a_fit(toy: DataBunch, monkeypatch: pytest.MonkeyPatch):
    tries: list[int] = []
    check = capture._check_capturable
    monkeypatch.setattr(capture, "_check_capturable", lambda *args: tries.append(1) or check(*args))
    learn = Learner(toy, Counts(), engine="fast", silent=True)
    learn.fit(3, 1e-3)
    assert len(tries) == 1
    learn.fit(2, 1e-3)
    assert len(tries) == 2


def test_a_callback_that_wants_the_loss_keeps_it_eager(toy: DataBunch, capsys: pytest.CaptureFixture[str]):
    class Double(Callback):
        def on_backward_begin(self, fit: Any) -> None:
            fit.loss = fit.loss * 2

    Learner(toy, Net(), engine="fast", callbacks=Double()).fit(1, 1e-3)
    assert "engine: eager, because a callback wants the loss before the backward pass" in capsys.readouterr().out


def test_auto_captures_only_what_is_long_enough(toy: DataBunch, captures: list[int], monkeypatch: pytest.MonkeyPatch):
    from onecycle.train import engine

    monkeypatch.setattr(engine, "_WORTH_THE_FIRST", 30)
    monkeypatch.setattr(engine, "_WORTH_ANOTHER", 30)
    learn = Learner(toy, Net(), silent=True)
    learn.fit(2, 1e-3)  # 24 steps
    assert not captures
    learn.fit(3, 1e-3)
    assert len(captures) == 1


def test_an_engine_that_is_not_there(toy: DataBunch):
    with pytest.raises(SettingError, match='unknown engine "fats"; expected auto, eager or fast; did you mean "fast"?'):
        Learner(toy, Net(), engine="fats")
