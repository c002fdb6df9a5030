"""Signals during a fit: which are handled, and that the previous handlers are back afterwards."""

import signal
import threading
from typing import Any

import pytest
import torch

from onecycle.core.record import Record
from onecycle.train.fit import Fit
from onecycle.train.signals import INTERRUPTED, handle_signals

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture
def fit() -> Fit:
    opt: Any = None
    return Fit(torch.nn.Linear(1, 1), opt, 1, Record(), torch.device("cpu"))


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in NUMBERS]


def test_the_first_ctrl_c_stops_the_fit_and_the_second_one_interrupts(fit: Fit):
    before = handlers()
    with pytest.raises(KeyboardInterrupt), handle_signals(fit):
        signal.raise_signal(signal.SIGINT)
        assert fit.stop_reason == INTERRUPTED
        signal.raise_signal(signal.SIGINT)
    assert handlers() == before


def test_a_checkpoint_can_be_requested(fit: Fit):
    before, requests = handlers(), []
    with handle_signals(fit, lambda: requests.append(1)):
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR1)
    assert len(requests) == 2
    assert fit.stop_reason is None
    assert handlers() == before


def test_sigterm_has_its_usual_effect_after_the_fit(fit: Fit):
    terminated: list[str | None] = []
    before = signal.signal(signal.SIGTERM, lambda *_: terminated.append(fit.stop_reason))
    try:
        with handle_signals(fit, lambda: None):
            signal.raise_signal(signal.SIGTERM)
            assert (fit.stop_reason, terminated) == ("terminated", [])
        assert terminated == ["terminated"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_of_the_program_stays(fit: Fit):
    calls: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: calls.append(number))
    try:
        with handle_signals(fit):
            signal.raise_signal(signal.SIGINT)
        assert calls == [signal.SIGINT]
        assert fit.stop_reason is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_nothing_is_handled_outside_the_main_thread(fit: Fit):
    before, during = handlers(), []

    def run() -> None:
        with handle_signals(fit, lambda: None):
            during.append(handlers())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert during == [before]
