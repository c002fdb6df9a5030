from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD

from conftest import Net, WithNorms, seeded, toy_arrays
from onecycle import (
    EMA,
    Callback,
    CSVLog,
    DataBunch,
    EarlyStopping,
    GradientAccumulation,
    GradientClip,
    Learner,
    SaveBest,
    accuracy,
)
from onecycle.errors import NonFiniteLossError, SettingError
from onecycle.train.callbacks.base import HOOKS, collect_hooks


def test_there_are_eight_hooks():
    assert (
        *("on_train_begin", "on_epoch_begin", "on_batch_begin", "on_backward_begin"),
        *("on_backward_end", "on_batch_end", "on_epoch_end", "on_train_end"),
    ) == HOOKS


def test_hooks_come_in_their_order(toy: DataBunch):
    calls: list[str] = []
    watch = type("Watch", (Callback,), {name: lambda self, fit, name=name: calls.append(name) for name in HOOKS})
    made_for: list[Learner] = []

    def make(learn: Learner) -> Callback:
        made_for.append(learn)
        return watch()

    learn = Learner(toy, Net(), callback_fns=make, silent=True)
    learn.fit(2, 1e-3)
    assert made_for == [learn]
    batch = ["on_batch_begin", "on_backward_begin", "on_backward_end", "on_batch_end"]
    epoch = ["on_epoch_begin", *batch * 12, "on_epoch_end"]
    assert calls == ["on_train_begin", *epoch * 2, "on_train_end"]


def test_a_hook_sees_where_the_training_stands(toy: DataBunch):
    seen = []

    class Watch(Callback):
        def on_batch_end(self, fit):
            seen.append((fit.epoch, fit.iteration, fit.num_batch, fit.loss.item(), len(fit.xb), fit.opt.momentum))

        def on_epoch_end(self, fit):
            seen.append(fit.record.row()[0])

    learn = Learner(toy, Net(), callbacks=[Watch()], silent=True)
    learn.fit(2, 1e-3)
    assert [entry for entry in seen if isinstance(entry, str)] == ["0", "1"]
    batches = [entry for entry in seen if not isinstance(entry, str)]
    assert [entry[:3] for entry in batches[11:14]] == [(0, 11, 11), (1, 12, 0), (1, 13, 1)]
    assert [entry[3] for entry in batches] == pytest.approx(learn.recorder.record.batch_losses)
    assert batches[0][4:] == (16, 0.9)


def test_a_hook_nobody_overrides_is_not_called():
    assert not any(collect_hooks([Callback()]).values())
    hooks = collect_hooks([Callback(), GradientClip(1.0)])
    assert [name for name, found in hooks.items() if found] == ["on_backward_end"]


def test_the_order_is_theirs_and_otherwise_that_of_the_list():
    calls: list[str] = []

    class Named(Callback):
        def __init__(self, name: str, order: int = 0) -> None:
            self.name, self.order = name, order

        def on_train_end(self, fit):
            calls.append(self.name)

    named = [Named("late", 1), Named("a"), Named("b"), Named("early", -1), Named("c")]
    for hook in collect_hooks(named)["on_train_end"]:
        hook(None)  # pyright: ignore
    assert calls == ["early", "a", "b", "c", "late"]


@pytest.mark.parametrize("where", ["on_batch_begin", "on_backward_end"])
def test_a_step_can_be_skipped(toy: DataBunch, where: str):
    class Skip(Callback):
        def skip(self, fit):
            fit.skip_step = fit.iteration % 2 == 0

    setattr(Skip, where, Skip.skip)
    learn = Learner(toy, Net(), callbacks=Skip(), silent=True)
    learn.fit(1, 1e-3)
    assert [entry["step"] for entry in learn.opt.state_dict()["state"].values()] == [6] * 4
    assert len(learn.recorder.losses) == 12


@pytest.mark.parametrize(
    "make",
    [
        lambda: [GradientAccumulation(5)],
        lambda: [EMA(0.9)],
        lambda: [EarlyStopping("accuracy", 1, min_delta=0.3)],
        lambda: [SaveBest("best", "accuracy")],
        lambda: [CSVLog("log.csv", overwrite=True)],
        lambda: [
            *(SaveBest("best"), EMA(0.99), GradientClip(0.1), GradientAccumulation(3)),
            *(CSVLog("log.csv", overwrite=True), EarlyStopping(patience=1, min_delta=0.5)),
        ],
    ],
)
@pytest.mark.parametrize("opt_func", [None, partial(SGD, momentum=0.9)])
def test_engines_agree_with_callbacks(make: Callable[[], list[Callback]], opt_func, here: Path):
    x, y = toy_arrays(columns=8)
    data = DataBunch.create((x, y % 2), (x, y % 2), bs=16, seed=3)
    found = []
    for engine in ("eager", "fast"):
        options = {} if opt_func is None else {"opt_func": opt_func}
        learn = Learner(
            data, seeded(WithNorms()), metrics=accuracy, callbacks=make(), silent=True, engine=engine, **options
        )
        learn.fit_one_cycle(6, 1e-2)
        learn.fit(1, 1e-3)
        assert (getattr(learn.engine, "captured", None) is not None) == (engine == "fast")
        log = Path("log.csv").read_text().splitlines() if Path("log.csv").exists() else []
        record = learn.recorder.record
        rows = [line.rpartition(",")[0] for line in log]  # without the time
        found.append(
            ((record.batch_losses, record.val_losses, record.metrics, rows), list(learn.model.state_dict().values()))
        )
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_a_loss_that_is_no_number_ends_a_fit_without_a_callback(toy: DataBunch):
    learn = Learner(toy, Net(), loss_func=lambda out, y: out.sum() * float("nan"), silent=True)
    with pytest.raises(NonFiniteLossError, match="the loss became nan at step 0"):
        learn.fit(1, 1e-3)


def test_inputs_and_losses_can_be_replaced(toy: DataBunch):
    class Halve(Callback):
        def on_batch_begin(self, fit):
            fit.xb, fit.yb = fit.xb[:8], fit.yb[:8]

        def on_backward_begin(self, fit):
            fit.loss = fit.loss * 0

    learn = Learner(toy, Net(), callbacks=[Halve()], wd=0.0, silent=True)
    before = learn.model.lin1.weight.clone()
    learn.fit(1, 1e-2)
    assert (learn.model.lin1.weight == before).all()  # the loss that was stepped on is 0
    assert min(learn.recorder.record.batch_losses) > 0  # the record has the loss function's


def test_an_object_that_is_not_a_callback_and_a_hook_that_does_not_exist():
    with pytest.raises(SettingError, match="callbacks: 3 is not a Callback; derive its class from onecycle.Callback"):
        collect_hooks([3])  # pyright: ignore

    class Typo(Callback):
        def on_batch_ends(self, fit):
            pass

    with pytest.raises(SettingError, match='Typo has no hook on_batch_ends to override; did you mean "on_batch_end"?'):
        collect_hooks([Typo()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"callbacks": [GradientClip]}, r"callbacks: GradientClip is a class; expected GradientClip\(...\)"),
        (
            {"callback_fns": [GradientClip(1.0)]},
            r"callback_fns: GradientClip\(...\) is a callback; pass it as callbacks=",
        ),
        ({"callback_fns": [3]}, r"callback_fns: 3 is not a function; expected a function \(learner\) -> callback"),
    ],
)
def test_arguments_that_are_not_callbacks(toy: DataBunch, options: dict[str, Any], message: str):
    for call in (lambda learn: learn.fit(1), lambda learn: learn.lr_find()):
        with pytest.raises(SettingError, match=message):
            call(Learner(toy, Net(), silent=True, **options))


def test_a_class_among_the_callbacks_of_a_fit(toy: DataBunch):
    with pytest.raises(SettingError, match=r"callbacks: GradientClip is a class; expected GradientClip\(...\)"):
        Learner(toy, Net(), silent=True).fit(1, callbacks=[GradientClip])
