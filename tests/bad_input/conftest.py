"""Folders that can be compared, and models that were trained once for all tests."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from bad_input.makers import PIXELS, Y, parquet, photos
from cli.conftest import leave_out_pictures
from onecycle.cli.app import run

QUICK = ["--epochs", "1", "--lr", "0.01", "--device", "cpu", "--model"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three in it: the current one, the library's own, and the one for temporary files."""
    for name in ("here", "home", "temp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("ONECYCLE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    return tmp_path


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` draws nothing."""
    leave_out_pictures(monkeypatch)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs "table", "images" and "pictures", and what they were trained on."""
    folder = tmp_path_factory.mktemp("runs")
    before = Path.cwd()
    os.chdir(folder)
    try:
        parquet("a.parquet")()
        np.savez("pixels.npz", x=PIXELS, y=Y)
        photos()()
        with pytest.MonkeyPatch.context() as monkeypatch:
            leave_out_pictures(monkeypatch)
            assert run(["train", "a.parquet", "--target", "group", "--out", "table", *QUICK, "tabular:4"]) == 0
            assert run(["train", "pixels.npz", "--out", "images", *QUICK, "mlp:4"]) == 0
            assert run(["train", "photos", "--out", "pictures", *QUICK, "mlp:4"]) == 0
    finally:
        os.chdir(before)
    return folder
