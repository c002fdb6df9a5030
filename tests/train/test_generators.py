"""Fits in several threads: each equals the same fit alone, or is refused."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from conftest import seeded, toy_arrays
from onecycle import Callback, ClassificationInterpretation, DataBunch, Learner, accuracy
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


class Acts(Callback):
    """Call `act` in one of the hooks, once, and record the mode of each training step."""

    def __init__(self, hook: str, act: Callable[[Any], Any]) -> None:
        self.hook, self.act, self.modes, self.is_done = hook, act, list[bool](), False

    def _look(self, hook: str, fit: Any) -> None:
        if hook == self.hook and not self.is_done:
            self.is_done = True
            self.act(fit)

    def on_epoch_begin(self, fit):
        self._look("on_epoch_begin", fit)

    def on_batch_begin(self, fit):
        self._look("on_batch_begin", fit)
        self.modes += [module.training for module in fit.model.modules()]

    def on_batch_end(self, fit):
        self._look("on_batch_end", fit)

    def on_epoch_end(self, fit):
        modes = [module.training for module in fit.model.modules()]
        self._look("on_epoch_end", fit)
        assert [module.training for module in fit.model.modules()] == modes


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_batch_begin", "on_batch_end", "on_epoch_end"])
@pytest.mark.parametrize(
    "what", ["validate", "predict", "get_preds", "interpretation", "export", "fit", "other", "part"]
)
def test_what_a_callback_does_leaves_the_modes_of_the_fit(what: str, hook: str, here: Any):
    acts: dict[str, Callable[[Any], Any]] = {
        "validate": lambda _: learn.validate(),
        "predict": lambda _: learn.predict(torch.zeros(20)),
        "get_preds": lambda _: learn.get_preds("train"),
        "interpretation": lambda _: ClassificationInterpretation.from_learner(learn),
        "export": lambda _: learn.export("bundle"),
        "fit": lambda _: learn.fit(1, 1e-3, callbacks=[]),
        "other": lambda _: other.fit(1, 1e-3),
        "part": lambda fit: Learner(learn.data, fit.model, silent=True).validate(),
    }
    learn, other = learner(0.5), learner()
    seen = Acts(hook, acts[what])
    learn.fit(2, 1e-2, callbacks=seen)
    assert seen.is_done
    assert all(seen.modes)
    assert not learn.model.training
    assert not other.model[2].training or what != "other"


def test_a_layer_in_eval_mode_stays_in_it():
    learn = learner(0.5)
    seen = Acts("on_epoch_begin", lambda fit: (fit.model[2].eval(), learn.validate()))
    learn.fit(1, 1e-2, callbacks=seen)
    assert seen.modes[:5] == [True, True, True, False, True]


def test_predictions_in_another_thread_are_refused_while_the_model_is_trained():
    learn = learner()
    whole = Learner(learn.data, nn.Sequential(learn.model, nn.Identity()), silent=True)

    def act() -> None:
        for look in (learn.validate, learn.get_preds, lambda: learn.predict(torch.zeros(20)), whole.validate):
            with pytest.raises(SettingError, match="another thread is training this model, which cannot be in eval"):
                look()
        learner().validate()  # another model
        assert learn.model.training

    assert during(learn, act) == []
    learn.validate()


def test_a_fit_waits_for_a_prediction_in_another_thread():
    class Slow(nn.Module):
        def forward(self, x):
            if not torch.is_grad_enabled() and not self.training and threading.current_thread() is thread:
                started.set()
                assert go_on.wait(60)
            modes.append((threading.current_thread() is thread, self.training))
            return x

    modes: list[tuple[bool, bool]] = []
    started, go_on, thread = threading.Event(), threading.Event(), None
    learn = learner()
    learn.model.append(Slow())
    ready = threading.Event()

    def look() -> None:
        assert ready.wait(60)
        learn.predict(torch.zeros(20))

    thread, errors = in_thread(look)
    ready.set()
    assert started.wait(60)
    training, more = in_thread(lambda: learn.fit(1, 1e-2))
    training.join(0.2)
    assert modes == []  # it has not begun
    go_on.set()
    for each in (thread, training):
        each.join()
    assert errors == more == []
    assert modes[0] == (True, False)
    assert not any(is_training for is_prediction, is_training in modes if is_prediction)
