"""Puts a data set's file where the lesson looks for it, once; many processes may ask at the same time."""

import gzip
import os
import pickle
import sys
from contextlib import suppress
from pathlib import Path

from onecycle.core.config import Config, ListablePath
from onecycle.core.files import atomic_write, unwritable
from onecycle.core.lock import Lock
from onecycle.data.datasets import DataSet, find_dataset

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
        if lock := Lock.take(path):
            return lock  # None: somebody has removed the folder meanwhile
