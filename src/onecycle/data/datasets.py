"""The lesson's data sets: MNIST, as a DataBunch or as the file that the lesson reads."""

import gzip
import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import TensorDataset

from onecycle.core.config import Config, ListablePath
from onecycle.core.files import Lock, atomic_write, unwritable
from onecycle.core.reading import open_for_reading, read_unpacked
from onecycle.data.arrays import Array, idx_array
from onecycle.data.bunch import DataBunch
from onecycle.errors import FileError, SettingError, did_you_mean, printable

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

MNIST_FOLDER = Path(__file__).with_name("mnist")
_PIXEL_SCALE = 256  # the lesson's
_TRAIN_ROWS = 50_000  # the lesson's split of the 60,000 training images: the last 10,000 validate
# name → size and SHA-256 of the unpacked file
_MNIST_FILES = {
    "train-images-idx3-ubyte": (47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": (60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": (7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": (10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}
# Protocol 4 takes arrays as raw bytes (2 escapes them as text: twice the time) and needs no newer NumPy to be read.
# Level 1 writes MNIST in a third of level 6's time and reads as fast, for 20 instead of 17 MB.
_PROTOCOL = 4
_GZIP_LEVEL = 1
_PICKLE_OVERHEAD = 4096  # bytes that a pickle may take around its arrays


def mnist(bs: int = 64, seed: int | None = None, device: str | torch.device | None = None) -> DataBunch:
    """Load MNIST as in the lesson, from the copy in the package; no network is needed.

    Args:
        bs: Rows in a batch.
        seed: Decides the order of the training rows; by default it follows `torch.manual_seed`.
        device: Where the data lives; by default `ONECYCLE_DEVICE`, else a GPU if there is one.

    Returns:
        50,000 training, 10,000 validation and 10,000 test rows of 784 float32 pixels (pixel / 256), labels 0 to 9.

    Raises:
        FileError: If the copy in the package is damaged.

    Example:
        >>> learn = Learner(mnist(), MLP(784, 50, 10), metrics=accuracy)
        >>> learn.fit_one_cycle(3, 1e-2)
    """
    train, valid, test = (TensorDataset(torch.from_numpy(x), torch.from_numpy(y)) for x, y in _lesson_mnist())
    data = DataBunch.create(train, valid, test, bs=bs, seed=seed, device=device)
    data.pixel_scale = float(_PIXEL_SCALE)
    return data


def fetch(name: str) -> ListablePath:
    """Return the folder of a data set, which holds its file; the first call writes it. No network is needed.

    `fetch("mnist")` writes `mnist.pkl.gz` from the copy in the package: a pickle of
    `((x_train, y_train), (x_valid, y_valid), (x_test, y_test))`, float32 pixels of (n, 784) and int64 labels of (n,)
    for n = 50,000, 10,000 and 10,000.

    Args:
        name: Name of the data set; there is "mnist".

    Returns:
        The folder in `Config().data_path()`; its `ls()` lists the file.

    Raises:
        SettingError: If the name is unknown.
        OutputError: If the folder cannot be written.
        FileError: If the copy in the package is damaged.

    Example:
        >>> path = fetch("mnist")
        >>> path.ls()
    """
    if name not in DATASETS:
        hint = did_you_mean(name, DATASETS) or f"; known: {', '.join(DATASETS)}"
        raise SettingError(f'unknown data set "{name}"{hint}')
    dataset, folder = DATASETS[name], Config().data_path() / name
    path = folder / dataset.file
    if not _is_whole(path, dataset):
        with _acquire_lock(folder.with_name(f".{name}.lock")):
            if not _is_whole(path, dataset):  # another process may have written it while this one waited
                _write(path, dataset)
    return folder


class MnistArrays(NamedTuple):
    """The lesson's 50,000, 10,000 and 10,000 digits in file order: images of (n, 784) and labels of (n,), uint8."""

    train: tuple[Bytes, Bytes]
    valid: tuple[Bytes, Bytes]
    test: tuple[Bytes, Bytes]


def mnist_arrays() -> MnistArrays:
    """Read MNIST from the files in the package.

    Raises FileError if one is missing or is not the file that the library was released with.
    """
    images, labels, test_images, test_labels = map(_read_embedded, _MNIST_FILES)
    train, valid = slice(_TRAIN_ROWS), slice(_TRAIN_ROWS, None)
    return MnistArrays((images[train], labels[train]), (images[valid], labels[valid]), (test_images, test_labels))


def mnist_floats(images: Bytes) -> Floats:
    """Return the lesson's pixels: float32 of the same shape, from 0 (white) to 255/256 (black)."""
    return np.divide(images, _PIXEL_SCALE, dtype=np.float32)


def _read_embedded(name: str) -> Bytes:
    size, expected = _MNIST_FILES[name]
    path = MNIST_FOLDER / f"{name}.gz"
    content = read_unpacked(path, max_bytes=2 * size)
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise FileError(
            f"{path}: the unpacked content has SHA-256 {digest}; expected {expected}; the file was changed or damaged: "
            "reinstall onecycle"
        )
    array: Bytes = idx_array(content, path)
    return array.reshape(len(array), -1) if array.ndim > 1 else array


class DataSet(NamedTuple):
    """A data set that `fetch` can write as one file of arrays."""

    file: str
    array_bytes: int  # unpacked
    arrays: Callable[[], Sequence[tuple[Array, Array]]]  # makes a pair (x, y) for each set


def _lesson_mnist() -> Sequence[tuple[Array, Array]]:
    # a tuple, since the lesson's file holds one
    return tuple((mnist_floats(images), labels.astype(np.int64)) for images, labels in mnist_arrays())


DATASETS = {"mnist": DataSet("mnist.pkl.gz", 70_000 * (784 * 4 + 8), _lesson_mnist)}


def _is_whole(path: Path, dataset: DataSet) -> bool:
    # atomic_write leaves no partial file; this also detects one that something else cut short or replaced:
    # gzip ends with the unpacked size, which is the arrays' and a little more
    try:
        with open_for_reading(path) as file:
            start = file.read(2)
            file.seek(-4, os.SEEK_END)
            unpacked = int.from_bytes(file.read(4), "little")
    except FileError:
        return False
    return start == b"\x1f\x8b" and dataset.array_bytes < unpacked < dataset.array_bytes + _PICKLE_OVERHEAD


def _write(path: Path, dataset: DataSet) -> None:
    print(printable(f"writing {path} (once)"), file=sys.stderr)
    arrays = dataset.arrays()
    # no name and no time, so that the same arrays give the same bytes
    with atomic_write(path) as file, gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
        pickle.dump(arrays, packed, _PROTOCOL)


def _acquire_lock(path: Path) -> Lock:
    """Acquire the lock file `path`; its folder is made if it is missing."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(path.parent, error) from error
        if lock := Lock.acquire(path):
            return lock  # None: somebody has removed the folder meanwhile
