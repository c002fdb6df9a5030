"""Where stdout or stderr is closed, full, or read by nobody; and where names hold sequences for the terminal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from onecycle.cli.app import run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/dev/full").exists(), reason="files of Linux")]

QUICK = ["--epochs", "1", "--lr", "0.02", "--model", "tabular:8", "--device", "cpu"]
EVIL = "\x1b]0;owned\x07\u202e"


def shell(command: str) -> tuple[int, str]:
    """The exit code and stderr of a line of the shell, in which $O is the command line."""
    env = {**os.environ, "O": f"{sys.executable} -m onecycle"}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=env, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def trained(here: Path, no_pictures: None) -> Path:
    Path("t.csv").write_text("a,y\n" + "\n".join(f"{i * 37 % 101},{i * 37 % 101 > 50}" for i in range(120)) + "\n")
    assert run(["train", "t.csv", "--target", "y", *QUICK, "--out", "run"]) == 0
    return here


COMMANDS = ["predict run t.csv", "inspect t.csv --target y", "runs .", "doctor", "--help"]
TRAIN = f"train t.csv --target y {' '.join(QUICK)} --out new"


@pytest.mark.parametrize("command", [TRAIN, *COMMANDS])
def test_the_work_is_done_whatever_becomes_of_stdout(trained: Path, command: str) -> None:
    assert shell(f"$O {command} >&-")[0] == 0
    code, err = shell(f"rm -rf new; $O {command} >/dev/full")
    assert code == 1
    assert err.splitlines()[-1].startswith("error: stdout cannot be written (No space left on device)")
    assert "bug" not in err
    code, err = shell(f"rm -rf new; $O {command} | true; exit ${{PIPESTATUS[0]}}")
    assert code == 141
    assert "error" not in err
    if command == TRAIN:
        assert {path.name for path in Path("new").iterdir()} >= {"model", "record.json", "report.html"}


@pytest.mark.parametrize("command", [TRAIN, "predict run t.csv -o new.csv"])
def test_the_work_is_done_whatever_becomes_of_stderr(trained: Path, command: str) -> None:
    for redirect in ("2>/dev/full", "2>&-", ">&- 2>&- <&-"):
        assert shell(f"rm -rf new new.csv; $O {command} --force {redirect}") == (0, "")
        assert Path("new.csv" if " -o " in command else "new/report.html").exists()


def test_a_closed_stdout_is_no_place_for_a_file(trained: Path) -> None:
    """The first file that is opened would be descriptor 1, and get what C code prints."""
    code = "import os, sys; from onecycle.core.streams import reserve_descriptors as r; r(); print(os.open('t.csv', 0), file=sys.stderr)"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{code}" <&- >&-'], capture_output=True, text=True, check=True
    )
    assert int(done.stderr) > 2


def clean(text: str) -> bool:
    return not any(char in text for char in "\x1b\x07\u202e\x00\r\x9b")


def test_names_do_nothing_to_the_terminal(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = f"a$x_{EVIL}"
    rows = [f"{i * 37 % 101},{EVIL}{'p$x$ ' if i * 37 % 101 > 50 else 'q'}" for i in range(120)]
    Path("t.csv").write_text(f"{name},y{EVIL}\n" + "\n".join(rows) + "\n")
    out = f"run{EVIL}"
    assert run(["inspect", "t.csv", "--target", f"y{EVIL}"]) == 0
    assert run(["train", "t.csv", "--target", f"y{EVIL}", *QUICK, "--out", out]) == 0
    assert run(["runs", "."]) == 0
    assert run(["report", out]) == 0
    assert run(["predict", out, "t.csv"]) == 0
    assert run(["train", "t.csv", "--target", f"z{EVIL}"]) == 2
    assert run(["predict", out, f"no{EVIL}.csv"]) == 2
    assert run(["train", "t.csv", "--kind", f"{EVIL}=numbr"]) == 2
    assert run([EVIL]) == 2
    printed, said = capfd.readouterr()
    assert clean(printed)
    assert clean(said)
    assert r"\x1b]0;owned\x07\u202e" in printed
    assert clean((Path(out) / "report.html").read_text())
    assert run(["predict", out, "t.csv", "--json"]) == 0
    printed, _ = capfd.readouterr()
    assert clean(printed)
    assert json.loads(printed)["predictions"][0]["class"].startswith(EVIL)


def test_a_class_does_not_break_the_columns(here: Path, no_pictures: None, capfd: pytest.CaptureFixture[str]) -> None:
    classes = ["one\ttab", "two\nlines", "three\vfour"]
    rows = [f'{i % 7}.5,"{classes[i % 3]}"' for i in range(60)]
    Path("t.csv").write_text("x,y\n" + "\n".join(rows) + "\n")
    assert run(["train", "t.csv", "--target", "y", *QUICK, "--out", "run"]) == 0
    capfd.readouterr()
    assert run(["predict", "run", "t.csv"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 60
    assert {line.split("\t")[0] for line in lines} <= {r"one\ttab", r"two\nlines", r"three\x0bfour"}
    assert all(line.count("\t") == 1 for line in lines)
