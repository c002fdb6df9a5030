"""The data sets that the library knows by name, and MNIST, which comes with it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from onecycle.core.errors import FileError, SettingError, did_you_mean
from onecycle.core.opening import read_unpacked
from onecycle.data.readers import idx_array

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
