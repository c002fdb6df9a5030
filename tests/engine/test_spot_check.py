"""The net below the proof: a captured step that is wrong is found, and training goes on from where it was right."""

from typing import Any

import pytest
import torch

from conftest import Net, seeded, toy_arrays
from onecycle import Callback, DataBunch, Learner
from onecycle.engine.capture import CapturedStep
from onecycle.engine.guards import Guards
from onecycle.engine.spot_check import SpotCheck


class Scaled(Net):
    scale = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.scale


class ScaleFrom(Callback):
    """Change the model before a step, and so that replaying it is wrong."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_begin(self, fit: Any) -> None:
        if fit.iteration == self.step:
            fit.model.scale = 2.0


def learner(engine: str, callback: Callback | None = None) -> Learner:
    data = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=4, seed=3)
    return Learner(data, seeded(Scaled()), engine=engine, callbacks=callback)


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("engine:")]


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hole in the proof: guards notice nothing. A check is always due."""
    monkeypatch.setattr(Guards, "changed", lambda _: None)
    monkeypatch.setattr(SpotCheck, "is_due", lambda _: True)


def test_a_run_that_went_wrong_is_repeated_from_where_it_was_right(
    blind: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run, lengths = CapturedStep.run, list[int]()

    def changing(self: CapturedStep, *args: Any) -> Any:
        losses = run(self, *args)
        lengths.append(len(losses))
        if len(lengths) == 3:
            self._model.scale = 2.0
        return losses

    monkeypatch.setattr(CapturedStep, "run", changing)
    fast = learner("fast")
    fast.fit(2, 1e-2)
    assert lengths == [1, 2, 4, 8][: len(lengths)]
    (line,) = lines_of(capsys)
    assert "gave other numbers than an eager one; weights and optimizer are those of step 4, where they agreed" in line
    eager = learner("eager", ScaleFrom(4))  # the check before the third run was the last that passed
    eager.fit(2, 1e-2)
    assert fast.recorder.record.batch_losses == eager.recorder.record.batch_losses
    assert fast.recorder.losses == eager.recorder.losses
    assert fast.recorder.lrs == eager.recorder.lrs
    assert fast.recorder.val_losses == eager.recorder.val_losses
    assert all(map(torch.equal, fast.model.parameters(), eager.model.parameters()))


def test_single_steps_are_checked_too(blind: None, capsys: pytest.CaptureFixture[str]):
    fast = learner("fast", ScaleFrom(7))
    fast.fit(1, 1e-2)
    (line,) = lines_of(capsys)
    assert "weights and optimizer are those of step 6, where they agreed" in line
    assert len(fast.recorder.losses) == 50


def test_a_check_that_passes_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    checked = list[int]()
    passes = SpotCheck.passes

    def counting(self: SpotCheck, fit: Any, xb: Any, yb: Any) -> bool:
        checked.append(fit.iteration)
        return passes(self, fit, xb, yb)

    monkeypatch.setattr(SpotCheck, "passes", counting)
    monkeypatch.setattr(SpotCheck, "is_due", lambda _: True)
    learners = [learner("eager"), learner("fast")]
    for learn in learners:
        learn.fit_one_cycle(2, 1e-2)
    assert len(checked) > 3
    assert learners[0].recorder.record.batch_losses == learners[1].recorder.record.batch_losses
    assert learners[1].engine.captured is not None


def test_a_check_belongs_to_its_fit(monkeypatch: pytest.MonkeyPatch):
    fast = learner("fast")
    fast.fit(1, 1e-2)
    first = fast.engine._check
    with torch.no_grad():
        fast.model.lin1.weight.zero_()  # must not come back
    fast.fit(1, 1e-2)
    assert fast.engine._check is not first
    assert fast.engine._check is not None
    assert fast.engine._check.fit is fast._last_fit[1]


@pytest.mark.parametrize("scale", [None, 256.0])
def test_bytes_are_converted_before_a_check(scale: float | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SpotCheck, "is_due", lambda _: True)
    x, y = toy_arrays()
    data = DataBunch.create(((x * 50 + 128).clamp(0, 255).to(torch.uint8), y), bs=4, seed=0, pixel_scale=scale)
    fast = Learner(data, seeded(Scaled()), engine="fast", silent=True)
    fast.fit(1, 1e-2)
    assert fast.engine.captured is not None
    assert fast.engine.fallback_reason is None


def test_a_program_that_fails_at_its_first_run_is_left_for_eager_steps(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fails(*_: Any) -> Any:
        raise NameError("g2")

    monkeypatch.setattr(CapturedStep, "run", fails)
    learners = [learner("eager"), learner("fast")]
    for learn in learners:
        learn.fit(2, 1e-2)
    assert "its captured steps raised NameError" in lines_of(capsys)[0]
    assert learners[0].recorder.record.batch_losses == learners[1].recorder.record.batch_losses


def test_a_check_is_due_when_it_costs_under_one_hundredth(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    learn = learner("fast")
    learn.fit(1, 1e-2)
    monkeypatch.setattr("onecycle.engine.spot_check.time.perf_counter", lambda: now[0])
    check = learn.engine._check
    assert check is not None

    def agrees(*_: Any) -> bool:
        now[0] += 0.5
        return True

    monkeypatch.setattr(CapturedStep, "agrees", agrees)
    assert check.passes(learn._last_fit[1], None, None)
    now[0] += 49
    assert not check.is_due()
    now[0] += 50
    assert check.is_due()
