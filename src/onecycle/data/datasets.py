"""The lesson's data as a DataBunch."""

import gzip
import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import TensorDataset

from onecycle.core.config import Config, ListablePath
from onecycle.core.files import Lock, atomic_write, unwritable
from onecycle.core.reading import read_unpacked
from onecycle.data.bunch import DataBunch
from onecycle.data.readers import idx_array
from onecycle.errors import FileError, SettingError, did_you_mean

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

MNIST_FOLDER = Path(__file__).with_name("mnist")
_TRAIN = 50_000  # the lesson's split of the 60,000 training images: the first 50,000 train, the last 10,000 validate
# name → size and SHA-256 of the unpacked file
_MNIST_FILES = {
    "train-images-idx3-ubyte": (47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}


class Split(NamedTuple):
    """Images, uint8 of (n, 784), and labels, uint8 of (n,)."""

    images: Bytes
    labels: Bytes


class Mnist(NamedTuple):
    """The lesson's three parts: 50,000, 10,000 and 10,000 images, in file order."""

    train: Split
    valid: Split
    test: Split


def mnist_arrays() -> Mnist:
    """MNIST from the files in the package, each checked before use.

    Raises FileError where one is missing or is not the file that the library was released with.
    """
    images, labels = _embedded("train-images-idx3-ubyte"), _embedded("train-labels-idx1-ubyte")
    test = Split(_embedded("t10k-images-idx3-ubyte"), _embedded("t10k-labels-idx1-ubyte"))
    return Mnist(Split(images[:_TRAIN], labels[:_TRAIN]), Split(images[_TRAIN:], labels[_TRAIN:]), test)


def mnist_floats(images: Bytes) -> Floats:
    """The lesson's pixels: float32 of the same shape, from 0 (white) to 255/256 (black)."""
    return np.divide(images, 256, dtype=np.float32)


class DataSet(NamedTuple):
    """A data set that `fetch` can write as one file of arrays."""

    file: str
    array_bytes: int  # what the arrays take unpacked
    arrays: Callable[[], tuple[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], ...]]


def find_dataset(name: str) -> DataSet:
    """The data set called `name`. Raises SettingError, with the nearest name, where there is none."""
    if name not in DATASETS:
        hint = did_you_mean(name, DATASETS) or f"; known: {', '.join(DATASETS)}"
        raise SettingError(f'unknown data set "{name}"{hint}')
    return DATASETS[name]


def _embedded(name: str) -> Bytes:
    size, expected = _MNIST_FILES[name]
    path = MNIST_FOLDER / f"{name}.gz"
    content = read_unpacked(path, max_bytes=2 * size)
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise FileError(
            f"{path}: the unpacked content has SHA-256 {found}; expected {expected}; the file was changed or damaged: "
            "reinstall onecycle"
        )
    array: Bytes = idx_array(content, path)
    return array.reshape(len(array), -1) if array.ndim > 1 else array


def _lesson_mnist() -> tuple[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], ...]:
    return tuple((mnist_floats(images), labels.astype(np.int64)) for images, labels in mnist_arrays())


DATASETS = {"mnist": DataSet("mnist.pkl.gz", 70_000 * (784 * 4 + 8), _lesson_mnist)}


# Protocol 4 takes arrays as raw bytes (2 escapes them as text: twice the time) and needs no newer NumPy to be read.
# Level 1 writes MNIST in a third of level 6's time and reads as fast, for 20 instead of 17 MB.
_PROTOCOL = 4
_GZIP_LEVEL = 1
_PICKLE_EXTRA = 4096  # bytes that a pickle may take around its arrays


def fetch(name: str) -> ListablePath:
    """The folder of the data set `name`, which holds its file; makes the file first where it is not there.

    `fetch("mnist")` makes `mnist.pkl.gz` from the copy in the package, without a network: a pickle of
    `((x_train, y_train), (x_valid, y_valid), (x_test, y_test))`, float32 pixels of (n, 784) and int64 labels of (n,)
    for n = 50,000, 10,000 and 10,000. The folder lies in `Config().data_path()`.

    Raises SettingError for an unknown name, OutputError for a folder that cannot be written, FileError when the copy
    in the package is damaged.
    """
    dataset = find_dataset(name)
    folder = Config().data_path() / name
    path = folder / dataset.file
    if not _is_whole(path, dataset):
        with _lock(folder.with_name(f".{name}.lock")):
            if not _is_whole(path, dataset):  # another process may have written it while this one waited
                _write(path, dataset)
    return folder


def _is_whole(path: Path, dataset: DataSet) -> bool:
    # atomic_write leaves no part of a file; this also finds one that something else cut short or replaced:
    # gzip ends with the unpacked size, which is the arrays' and a little more
    try:
        with path.open("rb") as file:
            start = file.read(2)
            file.seek(-4, os.SEEK_END)
            unpacked = int.from_bytes(file.read(4), "little")
    except OSError:
        return False
    return start == b"\x1f\x8b" and dataset.array_bytes < unpacked < dataset.array_bytes + _PICKLE_EXTRA


def _write(path: Path, dataset: DataSet) -> None:
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # of writers that were killed: no live one holds the lock
        with suppress(OSError):  # Windows, without a lock: a live one's file, which the system keeps
            leftover.unlink()
    print(f"writing {path} (once)", file=sys.stderr)
    arrays = dataset.arrays()
    # no name and no time, so that the same arrays give the same bytes
    with atomic_write(path) as file, gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
        pickle.dump(arrays, packed, _PROTOCOL)


def _lock(path: Path) -> Lock:
    """Hold the lock file `path`, in a folder that is made where it is not there."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path.parent, error) from error
        if lock := Lock.acquire(path):
            return lock  # None: somebody has removed the folder meanwhile


def mnist(bs: int = 64, seed: int | None = None, device: str | torch.device | None = None) -> DataBunch:
    """MNIST as in the lesson: 50,000 / 10,000 / 10,000 rows of 784 floats (pixel / 256), labels 0 to 9.

    Read from the copy in the package; no network.
    """
    splits = [(torch.from_numpy(mnist_floats(x)), torch.from_numpy(y.astype(np.int64))) for x, y in mnist_arrays()]
    train, valid, test = (TensorDataset(x, y) for x, y in splits)
    data = DataBunch.create(train, valid, test, bs=bs, seed=seed, device=device)
    data.pixel_scale = 256.0
    return data
