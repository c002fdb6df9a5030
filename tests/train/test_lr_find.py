"""The finder's numbers, and that it leaves no trace."""

import os
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import Net, seeded
from onecycle import Callback, DataBunch, Learner, accuracy, r2_score
from onecycle.errors import SettingError

MESSAGE = "LR Finder is complete, type {learner_name}.recorder.plot() to see the graph."


class Everything(nn.Module):
    """Dropout, BatchNorm, and a plain attribute that counts: all that a step can move."""

    def __init__(self) -> None:
        super().__init__()
        self.lin1, self.bn, self.lin2 = nn.Linear(20, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.lin2(F.dropout(torch.relu(self.bn(self.lin1(x))), 0.3, self.training))


class Counts(Callback):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_batch_end(self, fit: Any) -> None:
        self.steps.append(fit.iteration)


def learner(data: DataBunch, **options: Any) -> Learner:
    return Learner(data, seeded(Everything()), metrics=accuracy, silent=True, **options)


def test_rates_and_length(toy: DataBunch):
    result = learner(toy).lr_find(1e-5, 1, num_it=30, stop_div=False)
    assert len(result.lrs) == len(result.losses) == 30
    assert result.lrs == pytest.approx([1e-5 * 1e5 ** (i / 30) for i in range(30)])


def test_it_stops_when_the_loss_runs_away(toy: DataBunch):
    learn = Learner(toy, seeded(Net()), opt_func=torch.optim.SGD, silent=True)
    result = learn.lr_find(end_lr=1e4, num_it=100)
    assert 10 < len(result.lrs) < 100
    assert result.losses[-1] > 4 * min(result.losses)
    assert all(loss <= 4 * min(result.losses[: i + 1]) for i, loss in enumerate(result.losses[:-1]))


def test_a_loss_that_turns_nan_ends_it_quietly(toy: DataBunch):
    learn = Learner(toy, seeded(Net()), loss_func=lambda out, y: F.cross_entropy(out, y) * float("nan"), silent=True)
    assert len(learn.lr_find().losses) == 1


def test_discriminative_rates(toy: DataBunch):
    learn = learner(toy)
    learn.split(learn.model.lin2)
    result = learn.lr_find(slice(1e-6, 1e-5), slice(0.1, 1), num_it=10)
    assert result.lrs == pytest.approx([1e-5 * 1e5 ** (i / 10) for i in range(len(result.lrs))])


def state(learn: Learner) -> list[Any]:
    opt = learn.opt.state_dict() if learn.opt else None
    flat = [v for entry in (opt["state"].values() if opt else []) for v in entry.values()]
    return [
        *learn.model.state_dict().values(), *flat, torch.get_rng_state(),
        torch.tensor(learn.recorder.losses), torch.tensor([v for m in learn.recorder.metrics for v in m]),
        torch.tensor(learn.recorder.val_losses), torch.tensor(learn.recorder.moms), torch.tensor(learn.recorder.lrs),
    ]  # fmt: skip


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("finds", [1, 2])
def test_it_leaves_no_trace(toy: DataBunch, before: int, finds: int):
    learners = []
    for find in (False, True):
        torch.manual_seed(1)
        learn = learner(toy, callbacks=Counts())
        if before:
            learn.fit_one_cycle(1, 1e-2)
        for _ in range(finds * find):
            learn.lr_find(num_it=40)
        learn.fit_one_cycle(2, 1e-2)
        learners.append(learn)
    plain, found = learners
    for a, b in zip(state(plain), state(found), strict=True):
        assert torch.equal(a, b)
    assert plain.model.calls == found.model.calls
    assert plain.callbacks[0].steps == found.callbacks[0].steps


def test_it_leaves_no_trace_when_interrupted(toy: DataBunch):
    class PressCtrlC(Callback):
        def __init__(self) -> None:
            self.presses = False

        def on_backward_end(self, fit: Any) -> None:
            if self.presses and fit.iteration == 7:
                os.kill(os.getpid(), signal.SIGINT)

    plain, found = learner(toy), learner(toy, callbacks=PressCtrlC())
    for learn in (plain, found):
        learn.fit(1, 1e-2)
    recorder, found.callbacks[0].presses = found.recorder, True
    with pytest.raises(KeyboardInterrupt):
        found.lr_find()
    assert found.recorder is recorder
    found.callbacks[0].presses = False
    for learn in (plain, found):
        learn.fit(1, 1e-2)
    for a, b in zip(state(plain), state(found), strict=True):
        assert torch.equal(a, b)


def test_it_leaves_no_trace_when_something_fails(toy: DataBunch):
    class Broken(Callback):
        def on_backward_end(self, fit: Any) -> None:
            raise ZeroDivisionError

    learn = learner(toy)
    before = [value.clone() for value in learn.model.state_dict().values()]
    learn.callbacks.append(Broken())
    with pytest.raises(ZeroDivisionError):
        learn.lr_find()
    assert all(torch.equal(a, b) for a, b in zip(before, learn.model.state_dict().values(), strict=True))
    assert learn.model.training
    assert learn.opt is None


def test_gradients_are_left_as_they_were(toy: DataBunch):
    learn = learner(toy)
    learn.model.lin1.weight.grad = torch.full((8, 20), 2.0)
    learn.lr_find(num_it=5)
    assert (learn.model.lin1.weight.grad == 2).all()
    assert learn.model.lin2.weight.grad is None


def test_a_callback_that_points_to_the_learner_is_not_copied_with_it(toy: DataBunch):
    class Points(Callback):
        def __init__(self, learn: Learner) -> None:
            self.learn, self.model = learn, learn.model

    learn = learner(toy)
    learn.callbacks.append(Points(learn))
    learn.callbacks[0].file = Path(os.devnull).open()  # noqa: SIM115 -- a callback may keep one open
    learn.lr_find(num_it=5)
    learn.callbacks[0].file.close()
    assert learn.callbacks[0].learn is learn
    assert learn.callbacks[0].model is learn.model


def test_what_a_callback_shares_with_the_program_is_left_alone(toy: DataBunch):
    log: list[float] = []

    class Log(Callback):
        def __init__(self) -> None:
            self.log = log

        def on_batch_end(self, fit: Any) -> None:
            self.log.append(fit.loss)  # a tensor of the fit, which cannot be deep-copied with its history

        def on_epoch_end(self, fit: Any) -> None:
            assert fit.record.metrics[-1][0] is not None

    learn = learner(toy, callbacks=Log())
    learn.lr_find(num_it=15)
    assert log == []
    learn.fit(1, 1e-3)
    learn.lr_find(num_it=15)
    assert len(log) == 12


def test_tensors_and_flags_and_the_loss_are_put_back_too(toy: DataBunch):
    class Remembers(Net):
        ema = torch.zeros(4)

        def __init__(self) -> None:
            super().__init__()
            self.ema = torch.zeros(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = super().forward(x)
            self.ema = 0.9 * self.ema + out.detach().mean(0)
            return out

    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            self.seen += 1
            return self.weight * F.cross_entropy(out, y)

    class Unfreezes(Callback):
        def on_epoch_begin(self, fit: Any) -> None:
            fit.model.requires_grad_(True)

    learn = Learner(toy, Remembers(), loss_func=Weighted(), callbacks=Unfreezes(), silent=True)
    learn.model.lin1.requires_grad_(False)
    ema = learn.model.ema
    learn.lr_find(num_it=5)
    assert learn.model.ema is ema
    assert (ema == 0).all()
    assert learn.loss_func.seen.item() == 0
    assert learn.loss_func.weight.grad is None
    assert not learn.model.lin1.weight.requires_grad


def test_its_closing_line_and_its_plot(toy: DataBunch, capsys: pytest.CaptureFixture[str]):
    learn = Learner(toy, Net())
    result = learn.lr_find()
    assert capsys.readouterr().out == MESSAGE + "\n"
    assert learn.recorder.losses == result.losses
    figure = learn.recorder.plot()
    assert list(figure.axes[0].lines[0].get_xdata()) == result.lrs[10:-5]
    assert len(result.plot().axes[0].lines) == 2


def test_suggestions_come_by_name(toy: DataBunch):
    result = learner(toy).lr_find()
    names = result.suggestions()
    assert set(names) == {"valley", "steep", "minimum"}
    assert result.suggestion == names["valley"]
    assert names["minimum"] == pytest.approx(result.lrs[result.losses.index(min(result.losses[25:]))] / 10)
    assert 1e-4 < result.suggestion < 1


def test_too_short_to_suggest(toy: DataBunch):
    result = learner(toy).lr_find(num_it=3)
    with pytest.warns(
        UserWarning, match="lr_find: 3 learning rates with a finite loss are too few to suggest one; 0.00"
    ):
        assert result.suggestion == 3e-3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_table_whose_curve_is_noise_trains_all_the_same(seed: int):
    random = np.random.default_rng(seed)
    x = random.normal(size=(1000, 6))
    y = x[:, 0] + 0.5 * x[:, 1] + 1.5 * random.normal(size=1000)
    table = {f"x{i}": x[:, i].tolist() for i in range(6)} | {"y": y.tolist()}
    torch.manual_seed(seed)
    learn = Learner(DataBunch.from_table(table, target="y", seed=seed), metrics=r2_score, silent=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = learn.lr_find().suggestion
    assert 1e-4 < found < 1e-1
    assert [str(warning.message) for warning in caught] == (
        [] if found.is_certain else [f"lr_find: {found.why}; look at plot(), or give a learning rate of your own"]
    )
    learn.fit_one_cycle(8, found)
    assert learn.recorder.record.metrics[-1][0] > 0.2


@pytest.mark.parametrize("num_it", [0, 1.5, True])
def test_a_number_of_steps_that_cannot_be_used(toy: DataBunch, num_it: Any):
    with pytest.raises(SettingError, match=r"num_it is .*; expected a whole number of at least 1"):
        learner(toy).lr_find(num_it=num_it)


def test_an_epoch_of_many_batches():
    data = DataBunch.create((torch.zeros(10_000, 2), torch.arange(10_000) % 2), bs=1, seed=0)
    found = Learner(data, nn.Linear(2, 2), silent=True).lr_find(num_it=20, stop_div=False)
    assert len(found.lrs) == 20
