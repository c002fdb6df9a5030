"""A user's typed script passes pyright's strict mode and mypy's, and runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from typed import user_script

SCRIPT = Path(user_script.__file__)
SOURCE = Path(__file__).parents[2] / "src"

pytestmark = pytest.mark.slow


def checked(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(SCRIPT.read_text())
    environment = {**os.environ, "MYPYPATH": str(SOURCE), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_pyright_finds_nothing_in_it(tmp_path: Path):
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(SOURCE)], "include": ["script.py"]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    run = checked("pyright", "--pythonpath", sys.executable, folder=tmp_path)
    assert run.returncode == 0, run.stdout
    assert "0 errors" in run.stdout


def test_mypy_finds_nothing_in_it(tmp_path: Path):
    run = checked("mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "script.py", folder=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr


def test_it_runs(tmp_path: Path):
    recorder, losses = user_script.train(tmp_path)
    assert len(recorder.losses) == 16
    assert all(loss > 0 for loss in losses)
    assert len(user_script.train_on_a_table()) == 1
