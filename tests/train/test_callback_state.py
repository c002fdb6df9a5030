"""What callbacks keep in a checkpoint: a fit that is resumed in the middle ends as one that was never stopped."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from conftest import Net, seeded, toy_arrays
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
from onecycle.core.display import SilentDisplay
from onecycle.core.record import Record
from onecycle.optim.schedules import one_cycle_schedule
from onecycle.train import loop
from onecycle.train.callbacks.base import collect_hooks
from onecycle.train.callbacks.monitor import known_modes
from onecycle.train.fit import Fit, Position
from onecycle.train.recorder import Recorder

pytestmark = pytest.mark.slow

BATCHES, EPOCHS = 12, 6
Make = Callable[[], list[Callback]]


def through_files(state: dict[str, Any]) -> dict[str, Any]:
    """A callback's state as a checkpoint gives it back."""
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    values = {name: value for name, value in state.items() if name not in tensors}
    return json.loads(json.dumps(values, allow_nan=False)) | load(save(tensors))


@dataclass
class Kept:
    """A fit as it was after so many steps, or at the end of that epoch; it plays the part of the loop's saver."""

    steps: int
    run: "Run | None" = None
    position: Position | None = None
    parts: dict[str, Any] = field(default_factory=dict[str, Any])

    def begin(self, fit: Fit) -> None: ...

    def begin_epoch(self, fit: Fit) -> None: ...

    def check(self, fit: Fit) -> None: ...

    def fail(self, error: BaseException) -> None: ...

    def steps_until_due(self, fit: Fit) -> int:
        return 1

    def is_due(self, fit: Fit) -> bool:
        return fit.iteration == self.steps and fit.num_batch < BATCHES

    def end_epoch(self, position: Position) -> None:
        if position.iteration == self.steps:
            self.save(position)

    def save(self, position: Position) -> None:
        assert self.run is not None
        self.position = position
        states = [through_files(callback.state()) for callback in self.run.callbacks]
        learn = self.run.learn
        others = learn.model.state_dict(), learn.opt.state_dict(), self.run.recorder
        self.parts = {"callbacks": states, "others": copy.deepcopy(others)}

    def request(self) -> None: ...

    def close(self) -> None: ...


class Run:
    """A fit with a saver, from the start or from where another was kept."""

    def __init__(self, make: Make, engine: str, kept: Kept | None = None, begins: bool = True) -> None:
        self.callbacks = make()
        data = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=3)
        self.learn = learn = Learner(data, seeded(Net()), metrics=accuracy, silent=True, engine=engine)
        learn.opt = learn._make_opt()
        self.recorder = Recorder(Record(metric_names=["accuracy"]))
        if kept is not None:
            model, opt, self.recorder = copy.deepcopy(kept.parts["others"])
            learn.model.load_state_dict(model)
            learn.opt.load_state_dict(opt)
        schedule = one_cycle_schedule(BATCHES * EPOCHS, [0.03], (0.95, 0.85), 25, 0.3, 1e4)
        self.fit = learn._new_fit(EPOCHS, schedule, learn.opt, None, self.recorder)
        self.fit.columns, self.fit.modes = ("train_loss", "valid_loss", "accuracy"), known_modes([accuracy])
        self.hooks = collect_hooks(self.callbacks)
        if kept is not None:
            for hook in self.hooks["on_train_begin"] if begins else ():
                hook(self.fit)
            for callback, state in zip(self.callbacks, kept.parts["callbacks"], strict=True):
                if state is not None:
                    callback.load_state(state)

    def go(self, saver: Kept | None = None, start: Position | None = None) -> "Run":
        if saver is not None:
            saver.run = self
        learn, data = self.learn, self.learn.data
        loop.run_fit(
            loop.Run(
                self.fit, data.train_dl, data.valid_dl, learn._objective, self.hooks, self.recorder, SilentDisplay(),
                data.seed, learn.engine, checkpointer=saver, start=start,
            )
        )  # fmt: skip
        return self

    def outcome(self) -> dict[str, Any]:
        record = self.recorder.record
        opt = [value for entry in self.learn.opt.state_dict()["state"].values() for value in entry.values()]
        log = Path("log.csv").read_text().splitlines() if Path("log.csv").exists() else []
        return {
            "numbers": (record.batch_losses, record.val_losses, record.metrics, record.stopped),
            "log": [line.rpartition(",")[0] for line in log],  # without the time
            "tensors": [*self.learn.model.state_dict().values(), *opt],
            "states": [cb.state() for cb in self.callbacks if not isinstance(cb, CSVLog)],
        }


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["numbers"] == expected["numbers"]
    assert found["log"] == expected["log"]
    assert all(torch.equal(a, b) for a, b in zip(found["tensors"], expected["tensors"], strict=True))
    for a, b in zip(found["states"], expected["states"], strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) if "/" in name else a[name] == b[name] for name in a)


MAKES: dict[str, Make] = {
    "accumulate": lambda: [GradientAccumulation(5)],
    "ema": lambda: [EMA(0.9)],
    "early": lambda: [EarlyStopping("accuracy", 2, min_delta=0.2)],
    "best": lambda: [SaveBest("best", "accuracy")],
    "csv": lambda: [CSVLog("log.csv", overwrite=True)],
    "all": lambda: [
        *(SaveBest("best", mode="max"), EMA(0.9), GradientClip(0.1), GradientAccumulation(3), CSVLog("log.csv")),
        EarlyStopping("valid_loss", 2, min_delta=0.5),
    ],
}


@pytest.mark.parametrize("engine", ["eager", "fast"])
@pytest.mark.parametrize("steps", [7, 12, 16, 24])
@pytest.mark.parametrize("name", MAKES)
def test_a_resumed_fit_goes_on_bit_for_bit(name: str, steps: int, engine: str, here: Path):
    kept = Kept(steps)
    expected = Run(MAKES[name], engine).go(kept).outcome()
    assert kept.position is not None
    for begins in (True, False):
        resumed = Run(MAKES[name], engine, kept, begins).go(start=kept.position)
        assert_same(resumed.outcome(), expected)


@pytest.mark.parametrize("name", ["accumulate", "ema", "early", "best"])
def test_without_its_state_it_would_not(name: str, here: Path):
    """The test above would see a callback that keeps nothing."""
    kept = Kept(24 if name in ("early", "best") else 16)
    expected = Run(MAKES[name], "eager").go(kept).outcome()
    kept.parts["callbacks"] = [None]
    with pytest.raises(AssertionError):
        assert_same(Run(MAKES[name], "eager", kept).go(start=kept.position).outcome(), expected)


def test_a_state_is_a_copy(here: Path):
    run = Run(lambda: [EMA(), GradientAccumulation(5)], "eager")
    kept = Kept(7)
    run.go(kept)
    tensors = [value for cb in run.callbacks for value in cb.state().values() if isinstance(value, torch.Tensor)]
    before = [tensor.clone() for tensor in tensors]
    run.fit.stop_reason = None
    run.go()
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_most_callbacks_keep_nothing():
    assert Callback().state() == GradientClip(1.0).state() == {}
    Callback().load_state({})
