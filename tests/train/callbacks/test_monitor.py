"""Which numbers can be monitored, and whether lower or higher is better."""

from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from torch import Tensor, nn

from conftest import Net, seeded, toy_arrays
from onecycle import (
    Callback,
    CheckpointConfig,
    DataBunch,
    EarlyStopping,
    Learner,
    SaveBest,
    accuracy,
    average_precision,
    epoch_metric,
    error_rate,
    f1_score,
    mae,
    mean_absolute_error,
    mean_squared_error,
    mse,
    r2_score,
    rmse,
    roc_auc,
    root_mean_squared_error,
    top_k_accuracy,
)
from onecycle.checkpoint.run_folder import RunFolder
from onecycle.errors import SettingError
from onecycle.train.callbacks.monitor import Monitor, known_modes
from onecycle.train.metrics import metric_names


def r_squared(preds: Tensor, targets: Tensor) -> float:
    return r2_score(preds, targets)


def loss_of_mine(preds: Tensor, targets: Tensor) -> Tensor:
    return (preds - targets).abs().mean()


def marked(metric: Any, higher_is_better: Any) -> Any:
    metric = epoch_metric(metric)
    metric.higher_is_better = higher_is_better
    return metric


def renamed(metric: Any, name: str) -> Any:
    metric = partial(metric)
    metric.__name__ = name  # pyright: ignore[reportAttributeAccessIssue] -- a partial takes any
    return metric


KNOWN: list[tuple[Any, str]] = [
    *((metric, "max") for metric in (accuracy, top_k_accuracy, f1_score, roc_auc, average_precision, r2_score)),
    *((metric, "min") for metric in (error_rate, mean_squared_error, mean_absolute_error, root_mean_squared_error)),
    *((metric, "min") for metric in (mse, mae, rmse)),
    (partial(top_k_accuracy, k=3), "max"),
    (epoch_metric(error_rate), "min"),
    (epoch_metric(partial(top_k_accuracy, k=3)), "max"),
    (renamed(r2_score, "squared_error"), "max"),
    (renamed(mse, "goodness"), "min"),
    (marked(loss_of_mine, False), "min"),
    (marked(loss_of_mine, True), "max"),
    (torchmetrics.R2Score(), "max"),
    (torchmetrics.MeanAbsoluteError(), "min"),
    (torchmetrics.CohenKappa(task="multiclass", num_classes=4), "max"),
    (torchmetrics.HammingDistance(task="multiclass", num_classes=4), "min"),
]
UNKNOWN: list[Any] = [
    r_squared,
    loss_of_mine,
    lambda preds, targets: accuracy(preds, targets),  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType] -- as users write it
    wraps(mse)(lambda preds, targets: -mse(preds, targets)),  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType] -- the same
    marked(loss_of_mine, None),
    torchmetrics.MeanMetric(),
    torchmetrics.PearsonCorrCoef() + 1,
    *(renamed(loss_of_mine, name) for name in ("terrain_iou", "interrater_agreement", "maestro_f1", "accuracy", "mse")),
]


@pytest.mark.parametrize(("metric", "mode"), KNOWN, ids=lambda value: getattr(value, "__name__", ""))
def test_the_metric_itself_says_which_value_is_better(metric: Any, mode: str):
    name = metric_names([metric])[0]
    assert known_modes([metric]) == {"train_loss": "min", "valid_loss": "min", name: mode}


@pytest.mark.parametrize("metric", UNKNOWN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_name_says_nothing(metric: Any):
    assert known_modes([metric]) == {"train_loss": "min", "valid_loss": "min"}


def regression() -> Learner:
    x = torch.randn(96, 5, generator=torch.Generator().manual_seed(0))
    y = (x @ torch.tensor([1.0, 2, 3, 0, 0]))[:, None]
    return Learner(
        DataBunch.create((x[:64], y[:64]), (x[64:], y[64:]), bs=32, seed=1),
        seeded(nn.Linear(5, 1)),
        metrics=[epoch_metric(r_squared), r2_score],
        silent=True,
    )


def test_a_mode_that_is_not_known_is_asked_for_before_the_first_step(tmp_path: Path):
    for make in (lambda: EarlyStopping("r_squared"), lambda: SaveBest(tmp_path / "best", "r_squared")):
        learn = regression()
        with pytest.raises(
            SettingError, match=r"monitor is 'r_squared', and whether .* not known; set mode=\"min\" or"
        ):
            learn.fit(1, 1e-2, callbacks=make())
        assert not learn.recorder.losses
    with pytest.raises(SettingError, match="CheckpointConfig's monitor is 'r_squared', and whether its best value is"):
        regression().fit(1, 1e-2, checkpoint=CheckpointConfig(tmp_path / "run", best="r_squared"))
    with pytest.raises(SettingError, match="CheckpointConfig's mode is 'high'; expected min, max or None"):
        CheckpointConfig(tmp_path, best="r_squared", mode="high")  # pyright: ignore[reportArgumentType] -- a mistake
    regression().lr_find(num_it=3)  # its rows have no numbers, and are compared by nobody
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize(("monitor", "mode"), [("r_squared", "max"), ("r2_score", None)])
def test_the_best_epoch_by_mode_or_metric(tmp_path: Path, monitor: str, mode: Any):
    best, learn = SaveBest(tmp_path / "best", monitor, mode), regression()
    config = CheckpointConfig(tmp_path / "run", best=monitor, mode=mode)
    learn.fit(4, 1e-2, callbacks=best, checkpoint=config)
    found = [row[0] for row in learn.recorder.record.metrics]
    assert best.best == max(found) > min(found)
    assert RunFolder(tmp_path / "run").read_best()["value"] == max(found)
    assert learn.validate()[1] == max(found)


def test_a_resumed_run_keeps_its_mode(tmp_path: Path):
    class Stop(Callback):
        at = 3

        def on_batch_end(self, fit: Any) -> None:
            if fit.iteration == self.at:
                fit.stop("interrupted")

    learn = regression()
    config = CheckpointConfig(tmp_path, best="r_squared", mode="max")
    learn.fit(4, 1e-2, callbacks=Stop(), checkpoint=config)
    Stop.at, learn = -1, regression()
    learn.resume(tmp_path, callbacks=Stop())
    found = [row[0] for row in learn.recorder.record.metrics]
    assert RunFolder(tmp_path).read_best()["value"] == max(found) > min(found)


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
