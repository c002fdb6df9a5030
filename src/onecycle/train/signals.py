"""Signal handlers of a fit. What they ask for is done between two steps."""

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from onecycle.train.fit import Fit

INTERRUPTED, TERMINATED = "interrupted", "terminated"  # stop reasons of a fit that a signal ended
RESUMABLE = (INTERRUPTED, TERMINATED)
FINISHED = "finished"  # in a checkpoint: the fit reached its last epoch


@contextmanager
def handle_signals(fit: Fit, request_checkpoint: Callable[[], None] | None = None) -> Generator[None]:
    """Stop the fit at the first Ctrl-C, after the current step; a second Ctrl-C has its usual effect.

    If `request_checkpoint` is given, SIGTERM stops the fit too and then has its usual effect, and SIGUSR1 calls the
    function. A SIGINT handler of the program's own stays in place: Ctrl-C is handled only if it would raise
    KeyboardInterrupt. Does nothing outside the main thread, which signals never reach.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {}
    is_terminated, pid = False, os.getpid()

    def install(number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        previous[number] = signal.signal(number, handler)

    def uninstall(number: int) -> None:
        if number in previous:
            signal.signal(number, previous.pop(number))

    def pass_on_in_child(number: int) -> bool:
        """In a process forked since (a loader's worker), raise the signal for the previous handler and return True."""
        if os.getpid() == pid:
            return False
        uninstall(number)
        signal.raise_signal(number)
        return True

    def interrupt(number: int, _: FrameType | None) -> None:
        if not pass_on_in_child(number):
            uninstall(number)
            fit.stop(INTERRUPTED)

    def terminate(number: int, _: FrameType | None) -> None:
        nonlocal is_terminated
        if not pass_on_in_child(number):
            uninstall(number)
            is_terminated = True
            fit.stop(TERMINATED)

    def save(number: int, _: FrameType | None) -> None:
        assert request_checkpoint is not None  # the handler is installed only then
        if not pass_on_in_child(number):
            request_checkpoint()

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        install(signal.SIGINT, interrupt)
    if request_checkpoint is not None:
        install(signal.SIGTERM, terminate)
        if hasattr(signal, "SIGUSR1"):  # not on Windows
            install(signal.SIGUSR1, save)
    try:
        yield
    finally:
        for number in list(previous):
            uninstall(number)
        if is_terminated:
            signal.raise_signal(signal.SIGTERM)
