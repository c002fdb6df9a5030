"""Signals that reach a fit: they are answered between two steps."""

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from onecycle.train.fit import Fit

INTERRUPTED, TERMINATED = "interrupted", "terminated"
FINISHED = "finished"  # what a checkpoint says of a fit that reached its end
RESUMABLE = (INTERRUPTED, TERMINATED)  # reasons to end a fit that are not the fit's own


@contextmanager
def handle_signals(fit: Fit, saves: Callable[[], None] | None = None) -> Generator[None]:
    """The first Ctrl-C stops the fit after the step under way; a second one acts as usual.

    Where the fit is kept, SIGTERM does the same and then acts as usual, and SIGUSR1 calls `saves`. Ctrl-C only where it
    would raise KeyboardInterrupt: a handler of the program's own stays in place. Nothing in other threads than the
    main one, which signals do not reach.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}
    terminated, pid = False, os.getpid()

    def take(number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        before[number] = signal.signal(number, handler)

    def give_back(number: int) -> None:
        if number in before:
            signal.signal(number, before.pop(number))

    def is_child(number: int) -> bool:
        """Whether this is a process that was forked meanwhile: to it the signal does what it did before."""
        if os.getpid() == pid:
            return False
        give_back(number)
        signal.raise_signal(number)
        return True

    def interrupt(number: int, _: FrameType | None) -> None:
        if is_child(number):
            return
        give_back(number)
        fit.stop(INTERRUPTED)

    def terminate(number: int, _: FrameType | None) -> None:
        nonlocal terminated
        if is_child(number):
            return
        give_back(number)
        terminated = True
        fit.stop(TERMINATED)

    def save(number: int, _: FrameType | None) -> None:
        assert saves is not None  # the handler is set only then
        if not is_child(number):
            saves()

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        take(signal.SIGINT, interrupt)
    if saves is not None:
        take(signal.SIGTERM, terminate)
        if hasattr(signal, "SIGUSR1"):  # not on Windows
            take(signal.SIGUSR1, save)
    try:
        yield
    finally:
        for number in list(before):
            give_back(number)
        if terminated:
            signal.raise_signal(signal.SIGTERM)
