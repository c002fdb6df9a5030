"""The state of a fit: captured as a copy, and restored."""

import json
from typing import Any

import pytest
import torch

from conftest import Net, seeded, toy_arrays
from onecycle import EMA, Callback, DataBunch, Learner
from onecycle.checkpoint.state import FitState, capture_state, restore_state
from onecycle.errors import FileError
from onecycle.train.fit import Fit, Position


class Captures(Callback):
    """Captures the state after the fifth batch."""

    state_of_fit: FitState | None = None

    def on_batch_end(self, fit: Fit) -> None:
        if fit.iteration == 4:
            self.fit, self.weights = fit, {name: w.clone() for name, w in fit.model.state_dict().items()}
            self.state_of_fit = capture_state(fit, [EMA(0.9)], Position(0, 5, 5, 0.5))


@pytest.fixture
def captured() -> Captures:
    callback = Captures()
    data = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=3)
    Learner(data, seeded(Net()), silent=True, engine="eager").fit(1, 1e-2, callbacks=[callback])
    return callback


def state_of(captured: Captures) -> FitState:
    assert captured.state_of_fit is not None
    return captured.state_of_fit


def test_the_state_is_a_copy_that_restores_the_model(captured: Captures):
    state = state_of(captured)
    assert json.loads(json.dumps(state.values)) == state.values
    restore_state(state, captured.fit, [], "run")
    for name, weight in captured.fit.model.state_dict().items():
        assert torch.equal(weight, captured.weights[name])
        assert weight.data_ptr() != state.tensors["model"][name].data_ptr()


def test_record_and_position_come_back(captured: Captures):
    record = state_of(captured).record()
    assert record.batch_losses == captured.fit.record.batch_losses[: len(record.batch_losses)]
    assert len(record.lrs) == len(record.moms) == len(record.losses) == len(record.batch_losses)
    position = state_of(captured).position()
    assert (position.epoch, position.num_batch, position.iteration, position.seconds) == (0, 5, 5, 0.5)


@pytest.mark.parametrize(
    "columns", [{}, {"lrs": torch.zeros(3)}, dict.fromkeys(("lrs", "batch_losses", "losses"), torch.zeros(()))]
)
def test_a_record_without_its_numbers_is_refused(captured: Captures, columns: dict[str, Any]):
    state = state_of(captured)
    with pytest.raises((ValueError, TypeError)):
        FitState(state.tensors | {"record": columns}, state.values).record()


def test_a_state_without_its_optimizer_is_refused(captured: Captures):
    state = state_of(captured)
    values = {name: value for name, value in state.values.items() if name != "optimizer"}
    with pytest.raises(FileError, match="run: not the checkpoint of a fit"):
        restore_state(FitState(state.tensors, values), captured.fit, [], "run")
