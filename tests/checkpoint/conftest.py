"""Checkpoints without a thread."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from onecycle.checkpoint import writer


class ImmediateExecutor:
    """Stands in for the writer's thread: what is submitted is run at once, so that no checkpoint waits for another."""

    def __init__(self, *_: Any) -> None: ...

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[None]":
        future = Future[None]()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self) -> None: ...


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "ThreadPoolExecutor", ImmediateExecutor)
