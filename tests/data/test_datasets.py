import gzip
import shutil

import numpy as np
import pytest

from onecycle.data import datasets
from onecycle.data.datasets import find_dataset, mnist_arrays, mnist_floats
from onecycle.errors import FileError, SettingError


def test_mnist_parts():
    mnist = mnist_arrays()
    assert mnist._fields == ("train", "valid", "test")
    assert [part.images.shape for part in mnist] == [(50_000, 784), (10_000, 784), (10_000, 784)]
    assert [part.labels.shape for part in mnist] == [(50_000,), (10_000,), (10_000,)]
    assert {array.dtype for part in mnist for array in part} == {np.dtype(np.uint8)}
    assert all(array.flags.writeable for part in mnist for array in part)  # torch warns about read-only arrays
    assert mnist.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.valid.labels[:5].tolist() == [3, 8, 6, 9, 6]
    assert mnist.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(mnist.train.labels).tolist() == [4932, 5678, 4968, 5101, 4859, 4506, 4951, 5175, 4842, 4988]
    assert mnist.train.images[0].sum() == 27_525


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
    assert mnist_arrays().test.labels[0] == 7


def test_unknown_names():
    with pytest.raises(SettingError, match=r'unknown data set "minst"; did you mean "mnist"\?'):
        find_dataset("minst")
    with pytest.raises(SettingError, match='unknown data set "zzz"; known: mnist'):
        find_dataset("zzz")


def test_the_licence_lies_beside_the_data():
    text = (datasets.MNIST_FOLDER / "LICENSE.md").read_text(encoding="utf-8")
    for words in ("Yann LeCun", "Corinna Cortes", "Burges", "NIST Special Databases 1 and 3", "CC BY-SA 3.0", "Apache"):
        assert words in text
