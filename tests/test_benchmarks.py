"""The benchmark scripts that reach into the engine run, and measure what they say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SCRIPTS = Path(__file__).parents[1] / "benchmarks"


def printed(script: str, *options: str) -> str:
    command = [sys.executable, str(SCRIPTS / script), *options]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # the tests beside it have the other core
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=one_thread)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(text: str) -> dict[str, list[str]]:
    """The rows of a Markdown table, by their first cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {first: rest for first, *rest in rows[2:]}


def test_the_profile_of_a_step():
    parts = table(printed("profile_step.py", "--rounds", "1"))
    assert [*parts][:5] == ["gather", "forward", "loss", "backward", "optimizer"]
    for column in range(3):
        assert sum(int(row[column]) for row in list(parts.values())[:-1]) == pytest.approx(
            int(parts["a step"][column]), abs=4
        )


def test_every_mechanism_trains_alike():
    found = table(printed("mechanisms.py", "--rounds", "1", "--no-compile"))
    assert [cells[-1] for cells in found.values()] == ["0"] * 6 + ["-"]


def test_the_starts():
    found = table(printed("startup.py", "--rounds", "1"))
    assert [*found][:3] == ["python -c pass", "import onecycle", "from onecycle.basics import *"]
    assert {f"onecycle {name} --help" for name in ("train", "lr-find", "predict", "inspect", "doctor")} <= found.keys()
    assert all(float(cell) >= 0 for cells in found.values() for cell in (cells[0], cells[-1]))


def test_the_changes_to_the_process():
    found = table(printed("process_settings.py", "--rounds", "1"))
    assert len(found) == 3
    assert all(float(cell) > 0 for cells in found.values() for cell in cells)


def test_a_smoke_run_beside_the_floor(tmp_path: Path):
    peers = "onecycle_eager,onecycle_fast,floor"
    printed("run.py", "--quick", "--workloads", "lesson,rows", "--peers", peers, "--out", str(tmp_path))
    stem = next(tmp_path.glob("*.json")).stem
    results = json.loads((tmp_path / f"{stem}.json").read_text())
    assert all(peer["epochs"][0] > 0 for peer in results["workloads"]["lesson"]["peers"].values())
    text = (tmp_path / f"{stem}.md").read_text()
    assert re.search(r"\| onecycle, fast \| \d", text)
    assert (tmp_path / f"{stem}.png").stat().st_size > 10_000
