"""The fast engine gives the eager engine's losses and steps back to it if it must."""

import random
import signal
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD

from conftest import Everything, Net, seeded, toy_arrays
from engine.helpers import assert_agree, fitted
from onecycle import Callback, DataBunch, GradientClip, Learner
from onecycle.core.display import SilentDisplay
from onecycle.engine import capture
from onecycle.engine.capture import CapturedStep
from onecycle.errors import DataError, SettingError
from onecycle.optim.schedules import Constant
from onecycle.train.callbacks.base import collect_hooks
from onecycle.train.loop import Run, run_fit
from onecycle.train.recorder import Recorder
from onecycle.train.step import Objective


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
        (
            Branches(),
            "Branches.forward depends on the values in a batch (an `if`, `.item()`, a mask or the like) (test_engi",
        ),
        (Counts(), "Counts.forward sets .calls of Counts (test_engine.py:"),
        (Draws(), "Draws.forward calls random.Random.random (test_engine.py:"),
        (DrawsWithNumPy(), "DrawsWithNumPy.forward calls numpy.random.RandomState.rand (test_engine.py:"),
        (hooked(), "model.lin1 has a hook"),
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
    follower = capture.Follower
    monkeypatch.setattr(capture, "Follower", lambda *args: tries.append(1) or follower(*args))
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
    from onecycle.engine import engine

    monkeypatch.setattr(engine, "MIN_STEPS_TO_CAPTURE", 30)
    learn = Learner(toy, Net(), silent=True)
    learn.fit(2, 1e-3)  # 24 steps
    assert not captures
    learn.fit(3, 1e-3)
    assert len(captures) == 1


def test_an_engine_that_is_not_there(toy: DataBunch):
    with pytest.raises(SettingError, match='unknown engine "fats"; expected auto, eager or fast; did you mean "fast"?'):
        Learner(toy, Net(), engine="fats")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of steps of each run."""
    counted: list[int] = []
    run = CapturedStep.run

    def counting(self: CapturedStep, loader: Any, rows: Any, program: Any, numbers: Any) -> Any:
        counted.append(len(numbers))
        return run(self, loader, rows, program, numbers)

    monkeypatch.setattr(CapturedStep, "run", counting)
    return counted


@pytest.mark.parametrize(
    "opt_func",
    [
        *(
            SGD,
            partial(SGD, momentum=0.9),
            partial(SGD, momentum=0.9, nesterov=True),
            partial(SGD, momentum=0.9, dampening=0.5),
        ),
        *(torch.optim.Adam, torch.optim.AdamW, partial(torch.optim.AdamW, eps=1e-6)),
    ],
)
@pytest.mark.parametrize(
    "options", [{}, {"true_wd": False}, {"bn_wd": False, "split": True}, {"wd": [0.1, 0.0], "split": True}]
)
def test_runs_give_the_eager_numbers(opt_func: Any, options: dict[str, Any], runs: list[int]):
    eager = fitted("eager", Net(), opt_func=opt_func, **options)
    assert not runs
    assert_agree(eager, fitted("fast", Net(), opt_func=opt_func, **options))
    assert sum(runs) == 3 * 12 - 1  # all steps but the first, which captures
    assert len(runs) < 3 * 12 / 2


def test_runs_leave_the_optimizer_as_steps_do():
    x, y = toy_arrays()
    data = DataBunch.create((x, y), bs=2, seed=0)
    learners = [fitted(engine, Net(), data, metrics=None) for engine in ("eager", "fast")]
    states = [learn.opt.state_dict() for learn in learners if learn.opt]
    assert states[0]["param_groups"] == states[1]["param_groups"]
    for a, b in zip(states[0]["state"].values(), states[1]["state"].values(), strict=True):
        assert a["step"] == b["step"] == 300
        assert torch.allclose(a["exp_avg"], b["exp_avg"], rtol=1e-3, atol=1e-6)


def test_a_hook_around_the_batch_sees_every_batch(runs: list[int]):
    class Count(Callback):
        batches = 0

        def on_batch_end(self, fit: Any) -> None:
            self.batches += 1

    count = Count()
    learn = fitted("fast", Net(), callbacks=count)
    assert count.batches == 36
    assert learn.engine.captured is not None
    assert not runs


def test_an_optimizer_that_is_not_known_steps_between_replays(runs: list[int]):
    assert_agree(*(fitted(engine, Net(), opt_func=torch.optim.RMSprop) for engine in ("eager", "fast")))
    assert not runs


def test_a_parameter_that_never_gets_a_gradient_is_left_out_of_runs(runs: list[int], toy: DataBunch):
    assert_agree(*(fitted(engine, Everything(), opt_func=SGD) for engine in ("eager", "fast")))
    assert runs


def test_stopping_between_runs(toy: DataBunch, monkeypatch: pytest.MonkeyPatch):
    run = CapturedStep.run
    lengths: list[int] = []  # of the runs, which are shorter on a slow machine

    def stopping(self: CapturedStep, *args: Any) -> Any:
        if len(lengths) == 2:
            signal.raise_signal(signal.SIGINT)
        losses = run(self, *args)
        lengths.append(len(losses))
        return losses

    monkeypatch.setattr(CapturedStep, "run", stopping)
    learn = Learner(toy, Net(), engine="fast", silent=True)
    learn.fit(3, 1e-3)
    assert learn.recorder.stopped == "interrupted"
    assert len(lengths) == 3  # the run under way ended, and no other one began
    assert len(learn.recorder.losses) == 1 + sum(lengths)


@pytest.mark.parametrize("scale", [None, 256.0])
def test_bytes_stay_bytes_until_the_batch(scale: float | None):
    x, y = toy_arrays()
    pixels = (x * 50 + 128).clamp(0, 255).to(torch.uint8)
    data = DataBunch.create((pixels, y), (pixels, y), bs=16, seed=0, pixel_scale=scale)
    assert data.valid_dl is not None
    assert torch.equal(data.one_batch("valid")[0], pixels[:16] / (scale or 1))
    eager, fast = (fitted(engine, Net(), data) for engine in ("eager", "fast"))
    assert_agree(eager, fast)
    assert data.train_dl.tensors[0].dtype is torch.uint8


def test_labels_outside_are_named_in_a_run(toy: DataBunch):
    x, y = toy_arrays()
    data = DataBunch.create((x, y), bs=16, seed=0)
    learn = Learner(data, seeded(Net()), engine="fast", silent=True)
    learn.fit(1, 1e-3)
    data.train_dl.tensors[1][7] = 9
    with pytest.raises(DataError, match="labels contain 9; the model has 4 classes"):
        fit = learn._new_fit(1, Constant([1e-3]), learn.opt, None, learn.recorder)
        objective, hooks = Objective(learn.loss_func), collect_hooks([])
        # the check before a fit would find it, so go past that
        run_fit(Run(fit, data.train_dl, None, objective, hooks, Recorder(), SilentDisplay(), 0, learn.engine, 1))


def test_validation_is_captured_too(toy: DataBunch, captures: list[int]):
    eager, fast = (fitted(engine, Everything(), toy) for engine in ("eager", "fast"))
    assert fast.engine.captured_scores is not None
    assert fast.recorder.metrics == eager.recorder.metrics
    assert fast.validate() == pytest.approx(eager.validate(), rel=1e-4)


def test_a_metric_that_looks_at_values_is_called_with_every_batch(toy: DataBunch):
    seen: list[float] = []

    def looks(preds: torch.Tensor, targets: torch.Tensor) -> float:
        seen.append(preds.max().item())
        return seen[-1]

    learn = fitted("fast", Net(), toy, metrics=looks)
    assert learn.engine.captured is not None
    assert len(seen) >= 3 * 4
    by_size = [value * rows for value, rows in zip(seen[-4:], (16, 16, 16, 2), strict=True)]
    assert learn.recorder.metrics[-1][0] == pytest.approx(sum(by_size) / 50)


@pytest.mark.parametrize("engine", ["eager", "fast"])
def test_bf16_multiplies_in_bfloat16_and_keeps_weights_and_loss_in_float32(engine: str, toy: DataBunch):
    seen: list[torch.dtype] = []

    class Looks(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    full = fitted("eager", Net(), toy)
    half = fitted(engine, Looks(), toy, precision="bf16")
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}
    assert half.recorder.record.settings["precision"] == "bf16"
    losses, expected = half.recorder.record.batch_losses, full.recorder.record.batch_losses
    assert losses != expected
    assert losses == pytest.approx(expected, rel=0.03)
    assert half.get_preds()[0].dtype is torch.float32


def test_engines_agree_in_bf16(toy: DataBunch):
    eager, fast = (fitted(engine, Net(), toy, precision="bf16") for engine in ("eager", "fast"))
    assert fast.engine.captured is not None
    assert fast.recorder.record.batch_losses == pytest.approx(eager.recorder.record.batch_losses, rel=1e-3)


def test_a_precision_that_is_not_there(toy: DataBunch):
    with pytest.raises(SettingError, match='unknown precision "fp16"; expected fp32 or bf16; did you mean "bf16"?'):
        Learner(toy, Net(), precision="fp16")
