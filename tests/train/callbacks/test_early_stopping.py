"""When a fit is stopped, by which number, and that the cycle's annealing is waited for."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import Net, seeded
from onecycle import Callback, DataBunch, EarlyStopping, Learner, SaveBest, accuracy
from onecycle.core.record import Record
from onecycle.errors import SettingError
from onecycle.optim.schedules import Constant
from onecycle.train.fit import Fit
from onecycle.train.recorder import Recorder

VALUES = st.lists(st.floats(-3, 3) | st.just(math.nan), min_size=1, max_size=12)


def epochs_done(stopping: EarlyStopping, values: list[float]) -> int:
    """How many epochs come about when the monitored number takes these values."""
    recorder = Recorder(Record(metric_names=["score"]))
    opt: Any = None
    fit = Fit(torch.nn.Linear(1, 1), opt, len(values), recorder.record, torch.device("cpu"), Constant([0.1]), 1)
    for epoch, value in enumerate(values):
        fit.epoch, fit.iteration = epoch, epoch + 1
        recorder.end_epoch(epoch, 1, [0.0, value], 0.0)
        stopping.on_epoch_end(fit)
        if fit.stop_reason:
            return epoch + 1
    return len(values)


@given(VALUES, st.integers(1, 4), st.sampled_from([0.0, 0.5]), st.sampled_from(["min", "max"]))
def test_it_stops_where_the_best_of_the_last_epochs_is_no_better(
    values: list[float], patience: int, min_delta: float, mode: Any
):
    sign = 1 if mode == "max" else -1

    def is_over(seen: list[float]) -> bool:
        """By looking back from the end: the epochs since the last one that was better than the best before it."""
        best, since = -math.inf, 0
        for value in seen:
            better = sign * value > best + min_delta  # not for NaN
            best, since = (sign * value, 0) if better else (best, since + 1)
        return since >= patience

    expected = next((n for n in range(1, len(values) + 1) if is_over(values[:n])), len(values))
    assert epochs_done(EarlyStopping("score", patience, min_delta, mode=mode), values) == expected


def constant(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """A metric that is never better than before."""
    return preds.new_ones(())


def fitted(data: DataBunch, stopping: EarlyStopping, **options: Any) -> Learner:
    learn = Learner(data, seeded(Net()), metrics=[accuracy, constant], callbacks=stopping, silent=True)
    learn.fit_one_cycle(10, 1e-3, **{"pct_start": 0.5, **options})
    return learn


@pytest.mark.parametrize(
    ("wait", "pct_start", "epochs"),
    [(True, 0.5, 7), (False, 0.5, 3), (True, 0.0, 3), (True, 1.0, 10), (True, 0.8, 10)],
)
def test_it_waits_for_the_annealing(toy: DataBunch, wait: bool, pct_start: float, epochs: int):
    learn = fitted(toy, EarlyStopping("constant", patience=2, mode="max", wait_for_annealing=wait), pct_start=pct_start)
    assert len(learn.recorder.val_losses) == epochs
    reason = "constant was no better than 1.000000 for 2 epochs"
    assert learn.recorder.stopped == (reason if epochs < 10 else None)


def test_at_a_constant_rate_there_is_nothing_to_wait_for(toy: DataBunch):
    learn = Learner(
        toy, Net(), metrics=constant, callbacks=EarlyStopping("constant", patience=1, mode="max"), silent=True
    )
    learn.fit(5, 1e-3)
    assert learn.recorder.stopped == "constant was no better than 1.000000 for 1 epoch"
    assert len(learn.recorder.val_losses) == 2
    learn.fit(5, 1e-3)  # it starts anew
    assert len(learn.recorder.val_losses) == 2


def test_a_fit_that_gets_better_goes_on(toy: DataBunch):
    learn = fitted(toy, EarlyStopping(patience=1))
    assert learn.recorder.stopped is None


def test_the_lr_finder_runs_as_without_it(toy: DataBunch):
    stopping = EarlyStopping("accuracy")
    watched, plain = (
        Learner(toy, seeded(Net()), metrics=accuracy, callbacks=callbacks, silent=True)
        for callbacks in (stopping, None)
    )
    curves = [learn.lr_find(num_it=30) for learn in (watched, plain)]
    assert curves[0] == curves[1]
    assert (stopping.best, stopping.waited) == (None, 0)
    for learn in (watched, plain):
        learn.fit(2, 1e-3)
    assert watched.recorder.losses == plain.recorder.losses
    assert watched.recorder.metrics == plain.recorder.metrics
    assert stopping.best is not None


def test_settings_that_cannot_be_used():
    with pytest.raises(SettingError, match="EarlyStopping's patience is 0; expected a whole number of at least 1"):
        EarlyStopping(patience=0)
    with pytest.raises(SettingError, match="EarlyStopping's min_delta is -1; expected a finite number of at least 0"):
        EarlyStopping(min_delta=-1)


def test_it_keeps_the_runs_of_the_fast_engine(toy: DataBunch):
    """It has no hook around the batch."""
    from onecycle.train.callbacks.base import collect_hooks

    hooks = collect_hooks([EarlyStopping(), SaveBest("best")])
    assert not any(hooks[name] for name in hooks if "batch" in name or "backward" in name)
    assert not any(collect_hooks([Callback()]).values())


def test_nan_is_called_nan(toy: DataBunch):
    def never(preds: torch.Tensor, targets: torch.Tensor) -> float:
        return math.nan

    learn = Learner(toy, Net(), metrics=never, callbacks=EarlyStopping("never", patience=2, mode="max"), silent=True)
    learn.fit(5, 1e-3)
    assert learn.recorder.stopped == "never was NaN for 2 epochs"
