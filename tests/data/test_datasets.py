import gzip
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from onecycle import mnist
from onecycle.data import datasets
from onecycle.data.datasets import DataSet, fetch, mnist_arrays, mnist_floats
from onecycle.data.loaders import InMemoryLoader
from onecycle.data.pickles import load_pickle
from onecycle.errors import FileError, OutputError, SettingError


def test_mnist_parts():
    arrays = mnist_arrays()
    assert arrays._fields == ("train", "valid", "test")
    assert [images.shape for images, _ in arrays] == [(50_000, 784), (10_000, 784), (10_000, 784)]
    assert [labels.shape for _, labels in arrays] == [(50_000,), (10_000,), (10_000,)]
    assert {array.dtype for part in arrays for array in part} == {np.dtype(np.uint8)}
    assert all(array.flags.writeable for part in arrays for array in part)  # torch warns about read-only arrays
    assert arrays.train[1][:5].tolist() == [5, 0, 4, 1, 9]
    assert arrays.valid[1][:5].tolist() == [3, 8, 6, 9, 6]
    assert arrays.test[1][:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(arrays.train[1]).tolist() == [4932, 5678, 4968, 5101, 4859, 4506, 4951, 5175, 4842, 4988]
    assert arrays.train[0][0].sum() == 27_525


def test_floats_are_exact_256ths():
    floats = mnist_floats(np.arange(256, dtype=np.uint8))
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats.astype(np.float64) * 256, np.arange(256))


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package's files that a test may damage."""
    folder = tmp_path / "mnist"
    shutil.copytree(datasets.MNIST_FOLDER, folder)
    monkeypatch.setattr(datasets, "MNIST_FOLDER", folder)
    return folder


def test_a_changed_file_is_refused(copied):
    path = copied / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.write_bytes(gzip.compress(content))
    with pytest.raises(
        FileError,
        match=r"t10k-labels-idx1-ubyte\.gz: the unpacked content has SHA-256 [0-9a-f]{64}; expected ff7bcfd416de.*: "
        "reinstall onecycle",
    ):
        mnist_arrays()


def test_a_missing_file_is_named(copied):
    (copied / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileError, match=r"train-labels-idx1-ubyte\.gz: no such file"):
        mnist_arrays()


def test_a_recompressed_file_is_the_same_file(copied):
    path = copied / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    assert mnist_arrays().test[1][0] == 7


def test_the_licence_lies_beside_the_data():
    text = (datasets.MNIST_FOLDER / "LICENSE.md").read_text(encoding="utf-8")
    for words in ("Yann LeCun", "Corinna Cortes", "Burges", "NIST Special Databases 1 and 3", "CC BY-SA 3.0", "Apache"):
        assert words in text


def test_mnist_is_the_lessons():
    data = mnist(seed=1)
    assert [len(ds) for ds in (data.train_ds, data.valid_ds, data.test_ds)] == [50_000, 10_000, 10_000]
    x, y = data.train_ds.tensors
    assert (x.shape, x.dtype, y.dtype) == ((50_000, 784), torch.float32, torch.int64)
    assert (x.max().item(), y.min().item(), y.max().item()) == (255 / 256, 0, 9)
    assert y[:5].tolist() == [5, 0, 4, 1, 9]
    assert isinstance(data.train_dl, InMemoryLoader)


# fetch

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
    leftover = tiny.parent / ".tiny.pkl.gz.0123456789abcdef.tmp"
    leftover.write_bytes(b"half")
    mine = tiny.parent / "notes.tmp"
    mine.write_bytes(b"keep")
    fetch("tiny")
    assert sorted(tiny.parent.iterdir()) == [mine, tiny]


def test_unknown_names_make_no_folder(home):
    with pytest.raises(SettingError, match=r'unknown data set "mnits"; did you mean "mnist"\?'):
        fetch("mnits")
    with pytest.raises(SettingError, match='unknown data set "zzz"; known: mnist'):
        fetch("zzz")
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
