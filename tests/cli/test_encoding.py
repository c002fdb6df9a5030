"""What is printed where the output has not all letters, and where a file's name is no text."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onecycle.cli.app import run
from onecycle.core.record import Record

pytestmark = pytest.mark.slow

CITIES = ["Łódź", "Köln", "東京"]
QUICK = ["--epochs", "2", "--lr", "0.02", "--model", "tabular:8", "--device", "cpu"]


def printed(*args: str | bytes, encoding: str) -> bytes:
    """What a command prints in a process of its own, to a pipe of that encoding."""
    done = subprocess.run(
        [sys.executable, "-m", "onecycle", *args],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
def cities(here: Path, no_pictures: None) -> Path:
    """Numbers with a city each, which a model was trained to tell."""
    lines = [f"{i % 3 + i / 1000},{CITIES[i % 3]}" for i in range(90)]
    Path("rows.csv").write_text("\n".join(["x,city", *lines]) + "\n", encoding="utf-8")
    assert run(["train", "rows.csv", "--target", "city", *QUICK, "--out", "run"]) == 0
    return here


def escaped(text: str, encoding: str) -> str:
    return text.encode(encoding, "backslashreplace").decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-8:surrogateescape"])
def test_letters_that_the_output_lacks_are_escaped(cities: Path, encoding: str) -> None:
    charset = encoding.partition(":")[0]
    lines = printed("predict", "run", "rows.csv", encoding=encoding).decode(charset).splitlines()
    assert len(lines) == 90
    assert {line.split("\t")[0] for line in lines} <= {escaped(city, charset) for city in CITIES}
    seen = printed("inspect", "rows.csv", "--target", "city", encoding=encoding).decode(charset)
    assert all(escaped(city, charset) in seen for city in CITIES)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a name of a file is text")
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_files_name_is_printed_as_its_bytes(here: Path, encoding: str) -> None:
    folder = Path(os.fsdecode(b"r\xfcn"))
    folder.mkdir()
    Record().save(folder / "record.json")
    assert printed("report", b"r\xfcn", encoding=encoding) == b"r\xfcn/report.html\n"
