"""The weights of the best epoch: written when it ends, loaded when the fit ends."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conftest import Net, seeded
from onecycle import EMA, Callback, DataBunch, EarlyStopping, Learner, SaveBest, accuracy
from onecycle.errors import FileError, OutputError, SettingError
from onecycle.train.fit import Fit

Weights = dict[str, torch.Tensor]


class Keeps(Callback):
    """The weights that the model has when each epoch ends."""

    def __init__(self) -> None:
        self.epochs: list[Weights] = []

    def on_epoch_end(self, fit: Any) -> None:
        self.epochs.append({name: value.clone() for name, value in fit.model.state_dict().items()})


def ups_and_downs(*values: float) -> Any:
    """A metric that takes these values, one an epoch."""
    left = iter(values)
    now: list[float] = []

    def score(preds: torch.Tensor, targets: torch.Tensor) -> float:
        if len(preds) < 16:  # the last batch of an epoch
            return now.pop()
        if not now:
            now.append(next(left))
        return now[0]

    score.higher_is_better = True  # pyright: ignore[reportFunctionMemberAccess] -- as users write it
    return score


def learner(data: DataBunch, *callbacks: Callback, **options: Any) -> Learner:
    return Learner(data, seeded(Net()), callbacks=list(callbacks), silent=True, engine="eager", **options)


def assert_same(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize(
    ("values", "mode", "best"),
    [
        ((1.0, 3.0, 2.0, 3.0), None, 1),
        ((1.0, 3.0, 0.5, 0.5), "min", 2),
        ((math.nan, 3.0, 2.0, math.nan), None, 1),
        ((1.0, 2.0, 3.0, 4.0), None, 3),
    ],
)
@pytest.mark.parametrize("restore", [True, False])
def test_the_best_epoch_is_kept(
    toy: DataBunch, here: Path, values: tuple[float, ...], mode: str | None, best: int, restore: bool
):
    keeps, save = Keeps(), SaveBest("best", "score", mode, restore)
    learn = learner(toy, keeps, save, metrics=ups_and_downs(math.nan, *values))
    learn.validate()  # a first time, as the check before a fit
    learn.fit(4, 1e-2)
    assert save.state() == {"best": values[best], "epoch": best}
    assert_same(learn.model.state_dict(), keeps.epochs[best if restore else 3])
    assert_same(learner(toy, path=here, model_dir=".").load("best").model.state_dict(), keeps.epochs[best])


def test_the_lowest_validation_loss_by_default(toy: DataBunch, here: Path):
    keeps, save = Keeps(), SaveBest("deep/down/best")
    learn = learner(toy, keeps, save, metrics=accuracy)
    learn.fit(6, 0.3)
    losses = learn.recorder.val_losses
    best = losses.index(min(losses))
    assert_same(learn.model.state_dict(), keeps.epochs[best])
    assert learn.validate()[0] == pytest.approx(losses[best], rel=1e-6)


@pytest.mark.parametrize("ema_first", [True, False])
def test_with_an_average_it_keeps_that(toy: DataBunch, here: Path, ema_first: bool):
    class Stop(Callback):
        def on_batch_end(self, fit: Any) -> None:
            if fit.iteration == 40:
                fit.stop("enough")

    keeps, callbacks = Keeps(), [EMA(0.9), SaveBest("best")]
    learn = learner(toy, Stop(), keeps, *(callbacks if ema_first else reversed(callbacks)))
    learn.fit(5, 1e-2)
    losses = learn.recorder.val_losses
    assert len(losses) == 3
    assert_same(learn.model.state_dict(), keeps.epochs[losses.index(min(losses))])


def test_a_fit_without_a_good_epoch_leaves_the_model_alone(toy: DataBunch, here: Path):
    save = SaveBest("best", "score")
    learn = learner(toy, save, metrics=ups_and_downs(math.nan, math.nan))
    with pytest.warns(
        UserWarning,
        match="SaveBest's monitor 'score' was NaN after each of 2 epochs, so that no weights were saved in best; "
        "the model is as the last step left it: monitor another number",
    ):
        learn.fit(2, 1e-2)
    assert not Path("best").exists()
    learn.fit(0, 1e-2)
    learn.lr_find(num_it=20)
    assert not Path("best").exists()


def test_each_fit_starts_anew(toy: DataBunch, here: Path):
    save = SaveBest("best", "score", restore=False)
    learn = learner(toy, save, metrics=ups_and_downs(5.0, 1.0))
    learn.fit(1, 1e-2)
    learn.fit(1, 1e-2)
    assert save.state() == {"best": 1.0, "epoch": 0}


def test_a_fit_that_does_not_begin_leaves_the_model_alone(toy: DataBunch, here: Path):
    save, ema = SaveBest("best"), EMA()
    learn = learner(toy, ema, save)
    learn.fit(1, 1e-2)
    learn.callbacks = []
    learn.fit(1, 1e-2)
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    with pytest.raises(SettingError, match="EarlyStopping's monitor is 'lost'"):
        learn.fit(1, 1e-2, callbacks=[EarlyStopping("lost"), ema, save])
    assert_same(learn.model.state_dict(), before)


def test_a_place_that_is_taken(toy: DataBunch, here: Path):
    Path("best").mkdir()
    learn = learner(toy, SaveBest("best"))
    with pytest.raises(OutputError, match="best exists and is not a checkpoint that onecycle wrote; give another name"):
        learn.fit(1, 1e-2)
    assert not learn.recorder.losses


def test_weights_that_are_gone(toy: DataBunch, here: Path):
    class Removes(Callback):
        def on_epoch_end(self, fit: Any) -> None:
            Path("best").rename("elsewhere")

    class Last(Removes):
        order = 3

    with pytest.raises(FileError, match="best: no such folder; expected a checkpoint"):
        learner(toy, SaveBest("best"), Last()).fit(1, 1e-2)


def widen(model: Any) -> None:
    model.lin1, model.lin2 = nn.Linear(20, 16), nn.Linear(16, 4)


def new_head(model: Any) -> None:
    model.lin2 = nn.Linear(8, 4)
    nn.init.constant_(model.lin2.weight, 7.0)


OTHER = "SaveBest: the model has other parameters, or of other shapes, than in epoch 0, the best"


class Change(Callback):
    def __init__(self, change: Any) -> None:
        self.change = change

    def on_epoch_begin(self, fit: Any) -> None:
        if fit.epoch == 1:
            self.change(fit.model)


@pytest.mark.parametrize("change", [new_head, widen, lambda model: model.add_module("more", nn.Linear(1, 1))])
def test_weights_of_other_parameters_are_not_loaded(toy: DataBunch, here: Path, change: Any):
    keeps, metric = Keeps(), ups_and_downs(3.0, 2.0, 1.0)
    learn = learner(toy, SaveBest("best", "score"), keeps, Change(change), metrics=metric)
    with pytest.warns(UserWarning, match=OTHER):
        learn.fit(3, 1e-2)
    assert_same(learn.model.state_dict(), keeps.epochs[2])


def test_the_best_epoch_after_a_change_is_loaded(toy: DataBunch, here: Path):
    keeps = Keeps()
    learn = learner(toy, SaveBest("best", "score"), keeps, Change(new_head), metrics=ups_and_downs(1.0, 3.0, 2.0))
    learn.fit(3, 1e-2)
    assert_same(learn.model.state_dict(), keeps.epochs[1])


def test_a_new_head_before_the_fit_is_extended_stays(toy: DataBunch, here: Path):
    learn = learner(toy, metrics=ups_and_downs(3.0, 2.0))
    learn.fit(1, 1e-3, callbacks=SaveBest("best", "score"))
    new_head(learn.model)
    with pytest.warns(UserWarning, match=OTHER):
        learn.extend(1)
    assert torch.allclose(learn.model.lin2.weight, torch.full((4, 8), 7.0), atol=0.1)


def test_a_resumed_fit_knows_that_the_parameters_are_others(toy: DataBunch, here: Path):
    learn, callback = learner(toy, metrics=ups_and_downs(3.0, 2.0)), SaveBest("best", "score")
    with pytest.warns(UserWarning, match=OTHER):
        learn.fit(2, 1e-3, callbacks=[callback, Change(new_head)])
    assert callback.state() == {"best": 3.0, "epoch": 0, "fits": False}
    resumed = SaveBest("best", "score")
    resumed.load_state(callback.state())
    fit = Fit(learn.model, learn.opt, 2, learn.recorder.record, learn.device)
    before = {name: value.clone() for name, value in learn.model.state_dict().items()}
    with pytest.warns(UserWarning, match=OTHER):
        resumed.on_train_end(fit)
    assert_same(learn.model.state_dict(), before)
