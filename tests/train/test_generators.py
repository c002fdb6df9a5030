"""Fits in several threads: each equals the same fit alone, or is refused."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from conftest import seeded, toy_arrays
from onecycle import Callback, DataBunch, Learner, accuracy
from onecycle.errors import SettingError

REFUSED = "a fit is under way in another thread, and it or this one draws random numbers"


def learner(dropout: float = 0.0, seed: int = 1, engine: str = "eager", data: DataBunch | None = None) -> Learner:
    parts = seeded(nn.Linear(20, 8)), nn.ReLU(), nn.Dropout(dropout), seeded(nn.Linear(8, 4))
    data = data or DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=seed)
    return Learner(data, nn.Sequential(*parts), metrics=accuracy, silent=True, engine=engine)


class Meet(Callback):
    """Stop at a step until the test lets it go on."""

    def __init__(self, at: int = 3) -> None:
        self.at, self.reached, self.go_on = at, threading.Event(), threading.Event()

    def on_batch_end(self, fit):
        if fit.iteration == self.at:
            self.reached.set()
            assert self.go_on.wait(60)


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Exception]]:
    errors: list[Exception] = []

    def run() -> None:
        try:
            function()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def during(learn: Learner, act: Callable[[], Any]) -> list[Exception]:
    """Call `act` while `learn` trains in another thread; return the errors of that."""
    meet = Meet()
    thread, errors = in_thread(lambda: learn.fit(3, 1e-2, callbacks=meet))
    assert meet.reached.wait(60)
    try:
        act()
    finally:
        meet.go_on.set()
        thread.join()
    return errors


def same(a: Learner, b: Learner) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True))


@pytest.mark.parametrize("engine", ["eager", "auto", "fast"])
def test_fits_without_random_numbers_do_not_mind_each_other(engine: str):
    many = [learner(seed=seed, engine=engine) for seed in range(4)]
    threads = [in_thread(lambda learn=learn: (learn.lr_find(num_it=5), learn.fit_one_cycle(6, 1e-2))) for learn in many]
    for thread, errors in threads:
        thread.join()
        assert not errors
    for seed, learn in enumerate(many):
        alone = learner(seed=seed, engine=engine)
        alone.fit_one_cycle(6, 1e-2)
        assert same(learn, alone)


@pytest.mark.parametrize("engine", ["eager", "fast"])
@pytest.mark.parametrize(("first", "second"), [(0.5, 0.0), (0.0, 0.5), (0.5, 0.5)])
def test_the_second_fit_is_refused_if_one_draws_random_numbers(engine: str, first: float, second: float):
    learn, other, alone = learner(first, 1, engine), learner(second, 2, engine), learner(first, 1, engine)
    before = [parameter.detach().clone() for parameter in other.model.parameters()]

    def act() -> None:
        for train in (lambda: other.fit(1, 1e-2), lambda: other.lr_find(num_it=5)):
            with pytest.raises(SettingError, match=REFUSED):
                train()

    assert during(learn, act) == []
    alone.fit(3, 1e-2, callbacks=[Meet(-1)])
    assert same(learn, alone)  # nothing has disturbed it
    assert all(
        torch.equal(a, b) for a, b in zip(before, other.model.parameters(), strict=True)
    )  # before its first step
    other.fit(1, 1e-2)  # now it may


def test_a_loader_of_torch_draws():
    loader = DataLoader(TensorDataset(*toy_arrays()), 16, shuffle=True)
    other = learner(data=DataBunch(loader, seed=1))

    def act() -> None:
        with pytest.raises(SettingError, match=REFUSED):
            other.fit(1, 1e-2)

    assert during(learner(), act) == []


def test_one_model_in_two_threads_is_refused():
    learn = learner()

    def act() -> None:
        with pytest.raises(SettingError, match="another thread is training this model"):
            Learner(learn.data, learn.model, silent=True).fit(1, 1e-2)

    assert during(learn, act) == []


def test_a_refused_fit_leaves_no_lock_behind(here: Any):
    other = learner(0.5)

    def act() -> None:
        with pytest.raises(SettingError, match=REFUSED):
            other.fit(1, 1e-2, checkpoint="run")

    assert during(learner(0.5), act) == []
    other.fit(1, 1e-2, checkpoint="run")


def test_fits_within_a_fit_of_the_same_thread_are_as_alone():
    class Within(Callback):
        def on_epoch_begin(self, fit):
            inners[fit.epoch].lr_find(num_it=5)
            inners[fit.epoch].fit(1, 1e-2)

    inners = [learner(0.5, seed=2), learner(0.5, seed=2)]
    learn, alone = learner(0.5), learner(0.5)
    learn.fit(2, 1e-2, callbacks=Within())
    alone.fit(2, 1e-2)
    assert same(learn, alone)
    alone = learner(0.5, seed=2)
    alone.fit(1, 1e-2)
    assert all(same(inner, alone) for inner in inners)


def test_a_fit_that_fails_is_not_under_way_any_more():
    class Fail(Callback):
        def on_batch_end(self, fit):
            raise ZeroDivisionError

    thread, errors = in_thread(lambda: learner(0.5).fit(1, 1e-2, callbacks=Fail()))
    thread.join()
    assert isinstance(errors[0], ZeroDivisionError)
    learner(0.5).fit(1, 1e-2)
