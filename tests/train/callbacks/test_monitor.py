"""Which numbers can be monitored, and whether lower or higher is better."""

from typing import Any

import pytest
import torch

from conftest import Net, toy_arrays
from onecycle import DataBunch, EarlyStopping, Learner, SaveBest, accuracy, error_rate, mae, r2_score, rmse
from onecycle.errors import SettingError
from onecycle.train.callbacks.monitor import Monitor


@pytest.mark.parametrize(
    ("name", "is_lower_better"),
    [
        *((name, True) for name in ("train_loss", "valid_loss", "mean_squared_error", "MeanAbsoluteError", "log_loss")),
        *((metric.__name__, True) for metric in (error_rate, mae, rmse)),
        *((metric.__name__, False) for metric in (accuracy, r2_score)),
        *((name, False) for name in ("f1_score", "roc_auc", "top_k_accuracy", "R2Score", "my_own")),
    ],
)
def test_the_name_decides_which_value_is_better(name: str, is_lower_better: bool):
    assert Monitor(name, None, "X").is_lower_better is is_lower_better
    assert Monitor(name, "min", "X").is_lower_better
    assert not Monitor(name, "max", "X").is_lower_better


@pytest.mark.parametrize("callback", [EarlyStopping, SaveBest])
def test_a_number_that_the_fit_does_not_have(toy: DataBunch, callback: Any, tmp_path: Any):
    arguments = [] if callback is EarlyStopping else [tmp_path / "best"]
    learn = Learner(toy, Net(), metrics=accuracy, silent=True)
    before = learn.model.lin1.weight.detach().clone()
    name = callback.__name__
    message = f"{name}'s monitor is 'acuracy'; expected one of train_loss, valid_loss, accuracy; did you mean"
    with pytest.raises(SettingError, match=f'{message} "accuracy"'):
        learn.fit(1, 1e-2, callbacks=[callback(*arguments, monitor="acuracy")])
    bare = Learner(DataBunch.create(toy_arrays(), bs=16), learn.model, metrics=accuracy, silent=True)
    for monitor in ("valid_loss", "accuracy"):
        with pytest.raises(
            SettingError, match="since there is no validation set: give the data one, or monitor train_"
        ):
            bare.fit(1, 1e-2, callbacks=[callback(*arguments, monitor=monitor)])
    assert torch.equal(learn.model.lin1.weight, before)
    bare.fit(1, 1e-2, callbacks=[callback(*arguments, monitor="train_loss")])
    with pytest.raises(SettingError, match=f"{name}'s mode is 'maximum'; expected min, max or None"):
        callback(*arguments, mode="maximum")


def test_any_number_beats_none_and_nan_never_does():
    for mode, better in (("min", 1.0), ("max", 3.0)):
        monitor = Monitor("score", mode, "X")  # pyright: ignore[reportArgumentType] -- one of the two
        assert monitor.is_better(2.0, None)
        assert monitor.is_better(better, 2.0)
        assert not monitor.is_better(better, 2.0, by=1.0)
        assert not monitor.is_better(2.0, better)
        assert not monitor.is_better(float("nan"), None)
        assert not monitor.is_better(float("nan"), 2.0)
