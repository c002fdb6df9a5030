import gzip
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from onecycle.data.datasets import DataSet, fetch, mnist_arrays
from onecycle.data.pickles import load_pickle
from onecycle.errors import OutputError, SettingError

REAL_FILE = Path(__file__).parents[2].parent / "shared" / "data" / "mnist.pkl.gz"
FETCH = [sys.executable, "-c", "from onecycle.data.datasets import fetch; print(fetch('mnist'))"]
TINY = DataSet("tiny.pkl.gz", 4 * 8, lambda: ((np.arange(2), np.arange(2)),))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ONECYCLE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def tiny(home, monkeypatch):
    """A data set that takes no time, called "tiny"."""
    monkeypatch.setitem(sys.modules["onecycle.data.datasets"].DATASETS, "tiny", TINY)
    return home / "data" / "tiny" / "tiny.pkl.gz"


def read_as_the_lesson_does(path):
    with gzip.open(path, "rb") as f:
        return pickle.load(f, encoding="latin-1")


@pytest.mark.slow
def test_mnist_as_the_lesson_reads_it(home, capsys):
    folder = fetch("mnist")
    path = home / "data" / "mnist" / "mnist.pkl.gz"
    assert folder.ls() == [path]
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"writing {path} (once)\n"

    parts = read_as_the_lesson_does(path)
    for (x, y), (images, labels) in zip(parts, mnist_arrays(), strict=True):
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        np.testing.assert_array_equal(x * 256, images)
        np.testing.assert_array_equal(y, labels)
    for ours, theirs in zip(load_pickle(path), parts, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(ours, theirs, strict=True))
    if REAL_FILE.exists():
        for ours, theirs in zip(parts, load_pickle(REAL_FILE), strict=True):
            for one, other in zip(ours, theirs, strict=True):
                assert (one.dtype, one.shape) == (other.dtype, other.shape)
                np.testing.assert_array_equal(one, other)


def test_a_second_call_writes_nothing(tiny, capsys):
    fetch("tiny")
    before = tiny.stat()
    capsys.readouterr()
    fetch("tiny")
    assert tiny.stat().st_mtime_ns == before.st_mtime_ns
    assert tiny.stat().st_ino == before.st_ino
    assert capsys.readouterr().err == ""


def test_the_bytes_are_reproducible(tiny):
    fetch("tiny")
    first = tiny.read_bytes()
    tiny.unlink()
    time.sleep(1.01)  # gzip counts seconds
    fetch("tiny")
    assert tiny.read_bytes() == first


@pytest.mark.parametrize("damage", [b"", b"\x1f\x8b", b"no gzip at all", "half", "other"])
def test_a_damaged_file_is_written_anew(tiny, damage):
    fetch("tiny")
    whole = tiny.read_bytes()
    other = gzip.compress(pickle.dumps(np.zeros(9000)))
    tiny.write_bytes({"half": whole[: len(whole) // 2], "other": other}.get(damage, damage))
    fetch("tiny")
    assert tiny.read_bytes() == whole


def test_leftovers_of_killed_writers_go(tiny):
    tiny.parent.mkdir(parents=True)
    leftover = tiny.parent / ".tiny.pkl.gz.abc123.tmp"
    leftover.write_bytes(b"half")
    mine = tiny.parent / "notes.tmp"
    mine.write_bytes(b"keep")
    fetch("tiny")
    assert sorted(tiny.parent.iterdir()) == [mine, tiny]


def test_unknown_names_make_no_folder(home):
    with pytest.raises(SettingError, match=r'unknown data set "mnits"; did you mean "mnist"\?'):
        fetch("mnits")
    assert list(home.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file where the folder should be")
    monkeypatch.setenv("ONECYCLE_HOME", str(tmp_path / "home"))
    with pytest.raises(OutputError, match=r"home/data: cannot be written \(Not a directory\); choose a folder"):
        fetch("mnist")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everything")
def test_a_folder_without_permission(home):
    home.chmod(0o500)
    with pytest.raises(OutputError, match=r"data: cannot be written \(Permission denied\)"):
        fetch("mnist")


@pytest.mark.slow
def test_processes_at_once_write_one_whole_file(home):
    racers = [subprocess.Popen(FETCH, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    results = [racer.communicate(timeout=120) for racer in racers]
    folder = home / "data" / "mnist"
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert [out for out, _ in results] == [f"{folder}\n"] * 3
    assert "".join(err for _, err in results).count("writing") == 1  # the others waited for it
    assert [path.name for path in folder.iterdir()] == ["mnist.pkl.gz"]
    assert load_pickle(folder / "mnist.pkl.gz")[0][0].shape == (50_000, 784)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_kill_in_the_middle_leaves_no_part_and_no_lock(home):
    folder = home / "data" / "mnist"
    writer = subprocess.Popen(FETCH, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 1_000_000 for path in folder.glob(".*.tmp")):
        assert time.monotonic() < deadline
        assert writer.poll() is None
        time.sleep(0.005)
    writer.send_signal(signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    assert not (folder / "mnist.pkl.gz").exists()
    assert list(folder.glob(".*.tmp"))
    assert fetch("mnist").ls() == [folder / "mnist.pkl.gz"]  # nothing left over
    assert load_pickle(folder / "mnist.pkl.gz")[2][1].shape == (10_000,)
