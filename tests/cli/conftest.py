"""Models that were trained once for all tests."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cli.people_table import TARGETS, people, train_args
from onecycle.cli.app import run


def leave_out_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write neither plots nor a report, which take most of a short training's time."""
    monkeypatch.setattr("onecycle.cli.train.drawable", lambda record: {})
    monkeypatch.setattr("onecycle.cli.train.write_report", lambda record, path: path.touch())


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` draws nothing."""
    leave_out_pictures(monkeypatch)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with people.parquet and for each of TARGETS the run that was trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    pq.write_table(people(), folder / "people.parquet")
    with pytest.MonkeyPatch.context() as monkeypatch:
        leave_out_pictures(monkeypatch)
        for what in TARGETS:
            assert run([*train_args(folder / "people.parquet", what), "--out", str(folder / what)]) == 0
    return folder
