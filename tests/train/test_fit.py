"""The state of a fit that callbacks see: stopping and annealing early."""

from typing import Any

import pytest
import torch

from conftest import Net
from onecycle import AdamW, Fit, Record
from onecycle.optim.groups import leaves
from onecycle.optim.optimizer import GroupedOptimizer
from onecycle.optim.schedules import Annealed, OneCycle

BATCHES = 10


def new_fit(epochs: int = 6) -> Fit:
    model = Net()
    schedule = OneCycle(epochs * BATCHES, [1e-2], (0.95, 0.85), 25.0, 0.3, 25e4)
    opt = GroupedOptimizer(AdamW, [leaves(model)])
    return Fit(model, opt, epochs, Record(settings={"epochs": epochs}), torch.device("cpu"), schedule)


def test_the_first_reason_to_stop_wins():
    fit = new_fit()
    fit.stop("a")
    fit.stop("b")
    assert fit.stop_reason == "a"


def test_annealing_begins_with_the_next_epoch_and_is_recorded():
    fit = new_fit()
    before = fit.schedule
    fit.epoch = 1
    fit.anneal(2)
    assert fit.schedule is before  # the loop applies it, between two steps
    fit.apply_anneal_request(BATCHES)
    assert (fit.epochs, fit.record.settings) == (4, {"epochs": 4, "annealed from step": 20})
    assert all(fit.schedule(step) == before(step) for step in range(20))
    assert fit.schedule(40) == before(60)
    assert fit.anneal_request is None


@pytest.mark.parametrize(("epoch", "epochs"), [(5, 1), (5, 3)])
def test_in_the_last_epoch_there_is_nothing_to_anneal(epoch: int, epochs: int):
    fit = new_fit()
    fit.epoch = epoch
    fit.anneal(epochs)
    fit.apply_anneal_request(BATCHES)
    assert not isinstance(fit.schedule, Annealed)
    assert fit.epochs == 6


def test_looking_for_a_request_never_overwrites_one_that_arrives_meanwhile():
    class AskedBetweenReadAndWrite(Fit):
        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if name == "anneal_request" and value is None:
                vars(self)["anneal_request"] = 2  # by another thread, after the read
            return value

    plain = new_fit()
    fit = AskedBetweenReadAndWrite(plain.model, plain.opt, 6, plain.record, plain.device, plain.schedule)
    fit.apply_anneal_request(BATCHES)
    fit.apply_anneal_request(BATCHES)
    assert fit.epochs == 3


def test_the_first_of_two_requests_counts():
    fit = new_fit()
    fit.anneal(3)
    fit.anneal(1)
    fit.apply_anneal_request(BATCHES)
    assert fit.epochs == 4


def test_a_fit_never_gets_longer_and_anneals_once():
    fit = new_fit()
    fit.epoch = 3
    fit.anneal(100)
    fit.apply_anneal_request(BATCHES)
    first: Any = fit.schedule
    assert (fit.epochs, first.steps) == (6, 20)
    fit.anneal(1)
    fit.apply_anneal_request(BATCHES)
    assert fit.schedule is first
    assert fit.epochs == 6
