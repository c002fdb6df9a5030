"""The weights of the best epoch: written when it ends, loaded when the fit ends."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Net, seeded
from onecycle import EMA, Callback, DataBunch, EarlyStopping, Learner, SaveBest, accuracy
from onecycle.errors import FileError, OutputError, SettingError

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
