"""What the tests of the engine share."""

import pytest

from onecycle.engine.capture import CapturedStep


@pytest.fixture(autouse=True)
def runs_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """The length of a run is doubled however long the last one took, so that no test depends on the machine's speed."""
    monkeypatch.setattr("onecycle.engine.engine._MAX_RUN_SECONDS", 1e9)


@pytest.fixture(autouse=True)
def captured_again_in_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of these tests is too short to earn the time of capturing back."""
    monkeypatch.setattr("onecycle.engine.engine._OFTEN", 10)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each trace."""
    counted: list[int] = []
    init = CapturedStep.__init__
    monkeypatch.setattr(CapturedStep, "__init__", lambda *args: counted.append(1) or init(*args))
    return counted
