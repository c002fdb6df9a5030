"""The benchmark scripts that reach into the engine run, and measure what they say."""

import importlib
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


def test_one_thread_or_many(tmp_path: Path):
    printed("threads.py", "--rounds", "1", "--seconds", "0.01", "--only", "(lesson)", "--out", str(tmp_path))
    found = json.loads((tmp_path / "threads.json").read_text())
    (row,) = found["rows"]
    assert row["rule"] == 1
    assert row["million operations"] == pytest.approx(5.02, abs=0.1)
    assert row["ratios"].keys() >= {"0/1", "4/1"}
    assert all(ratio > 0 for ratio in row["ratios"].values())
    assert "| MLP 784-50-10, batch 64 (lesson) |" in (tmp_path / "threads.md").read_text()


def test_many_fits():
    lines = printed("many_fits.py", "--rounds", "1", "--epochs", "1").splitlines()
    assert lines[0].startswith("one fit: ")
    assert lines[0].endswith(", 1.00")
    assert len(lines) == 3


def test_a_smoke_run_beside_the_floor(tmp_path: Path):
    peers = "onecycle_eager,onecycle_fast,floor"
    printed("run.py", "--quick", "--workloads", "lesson,rows", "--peers", peers, "--out", str(tmp_path))
    stem = next(tmp_path.glob("*.json")).stem
    results = json.loads((tmp_path / f"{stem}.json").read_text())
    peers_found = results["workloads"]["lesson"]["peers"].values()
    assert all(peer["epochs"][0] > 0 and peer["busy"][0] > 0 for peer in peers_found)
    text = (tmp_path / f"{stem}.md").read_text()
    assert re.search(r"\| onecycle, fast \| \d", text)
    assert (tmp_path / f"{stem}.png").stat().st_size > 10_000


def test_the_gpu_checks_run_without_a_gpu_too(tmp_path: Path):
    command = ["bash", str(SCRIPTS / "gpu.sh"), "--quick", "--parts", "tests,lesson,step", "--out", str(tmp_path)]
    command += ["--peers", "onecycle_fast,tight_loop,cuda_graph"]
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results-gpu.json").read_text())
    assert json.loads(done.stdout.splitlines()[0]) == results
    assert not [part for part, found in results["parts"].items() if "failed" in found], results
    tests, lesson, step = (results["parts"][part]["result"] for part in ("tests", "lesson", "step"))
    assert tests["failed"] == {}
    assert tests["passed"] + tests["skipped"] > 10
    assert lesson["onecycle_fast"]["epochs"][0] > 0
    assert step["fast"]["note"] == "as asked"
    if not results["about"]["gpu"]:
        assert lesson["cuda_graph"]["missing"] == "needs a GPU"
        assert "nothing here is a measurement" in (tmp_path / "results-gpu.md").read_text()


def test_a_part_of_the_gpu_checks_that_fails_or_hangs_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    gpu = importlib.import_module("gpu")
    code = "import subprocess, time; print('{}', flush=True); subprocess.run(['sleep', '60'])"
    assert gpu.run_part([sys.executable, "-c", "print('{\"a\": 1}')"], 30)["result"] == {"a": 1}
    assert (
        gpu.run_part([sys.executable, "-c", "raise OSError('no card')"], 30)["failed"]
        == "ended with code 1: OSError: no card"
    )
    assert gpu.run_part([sys.executable, "-c", "pass"], 30)["failed"] == "printed no result: nothing was printed"
    assert gpu.run_part([sys.executable, "-c", code], 1)["failed"] == "stopped after 1 s"
    page = gpu.markdown({"about": {}, "parts": {"lesson": {"seconds": 1.0, "failed": "stopped after 1 s"}}})
    assert "| lesson | **stopped after 1 s** |" in page
