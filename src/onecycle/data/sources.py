"""What people bring: a file, a folder or an object, as a table or as arrays."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from onecycle.data.arrays import as_tensor, is_in_memory
from onecycle.data.images import read_image_folder
from onecycle.data.pickles import load_pickle
from onecycle.data.readers import read_idx, read_npy, read_npz
from onecycle.errors import DataError, FileError, did_you_mean
from onecycle.tables.adapters import as_column, as_table, open_table, table_name
from onecycle.tables.read import SUFFIXES, is_table_file

Pair = tuple[Tensor, Tensor]
PIXEL_SCALE = 256.0  # the lesson's: pixel / 256
_ARRAYS = (".npy", ".npz", ".pkl", ".pickle", ".idx", "-ubyte")
TARGET = "y"  # what the target of arrays is called


@dataclass(frozen=True)
class Arrays:
    """Rows and targets that are no table: images, or anything of more than two dimensions."""

    train: Pair
    valid: Pair | None = None
    test: Pair | None = None
    classes: list[str] | None = None  # names of the classes, where they have some

    @property
    def pixel_scale(self) -> float | None:
        """What the inputs are divided by: bytes are pixels."""
        return PIXEL_SCALE if self.train[0].dtype is torch.uint8 else None


def open_source(source: Any, image_size: int | tuple[int, int] | None = None, as_written: Sequence[str] = ()) -> Any:
    """`source` as a pyarrow.Table, or as Arrays.

    Takes the path of a table (CSV, Parquet, Arrow), of arrays (npy, npz, IDX, NumPy pickle) or of a folder of images by
    class; a table in memory; a pair (x, y); a dict of both; a torch Dataset. Rows of numbers become a table with the
    columns x0, x1, … and y. The columns `as_written` of a CSV file are kept as text. Raises DataError or FileError for
    anything else, and for what cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        if not os.fspath(source):  # which pathlib takes for the current folder
            raise FileError('the path is ""; expected that of a file or folder')
        return _opened(Path(source), image_size, as_written)
    found = _in_memory(source, table_name(source))
    return open_table(source) if found is None else found


def table_of_rows(rows: Any, as_written: Sequence[str] = ()) -> Any:
    """Rows to predict as a pyarrow.Table: a path or a table as `open_source` takes them, or an array (n, columns).

    None for something else, such as a loader.
    """
    if isinstance(rows, str | os.PathLike):
        return open_table(rows, as_written)
    if isinstance(rows, Tensor | np.ndarray):
        array = as_tensor(rows, "rows").cpu().numpy()
        if array.ndim != 2:
            raise DataError(f"rows have shape {array.shape}; expected (n, columns)")
        return array_table(array)
    return as_table(rows)


def array_table(x: Any, y: Any = None) -> Any:
    """Rows of numbers (n, columns) as a table of the columns x0, x1, … and, where targets are given, y."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    columns: dict[str, Any] = {f"x{i}": pa.array(np.ascontiguousarray(column)) for i, column in enumerate(x.T)}
    if y is not None:
        parts = y.T if y.ndim == 2 else [y]
        names = [TARGET] if len(parts) == 1 else [f"{TARGET}{i}" for i in range(len(parts))]
        columns |= {name: as_column(part, name) for name, part in zip(names, parts, strict=True)}
    return pa.table(columns)


def _opened(path: Path, image_size: int | tuple[int, int] | None, as_written: Sequence[str]) -> Any:
    if path.is_dir() and not is_table_file(path):
        found = read_image_folder(path, image_size)
        return Arrays((found.x, found.y), classes=list(found.classes))
    name = path.name.lower()
    if is_table_file(path):
        return open_table(path, as_written)
    if name.endswith(".npy"):
        return _of_arrays(read_npy(path), str(path))
    if name.endswith(".npz"):
        return _of_arrays(read_npz(path), str(path))
    if name.removesuffix(".gz").endswith((".pkl", ".pickle")):
        return _of_arrays(load_pickle(path), str(path))
    if name.removesuffix(".gz").endswith((".idx", "-ubyte")):
        return _of_arrays((read_idx(path), read_idx(_labels_of(path))), str(path))
    known = (*SUFFIXES, *_ARRAYS)
    if not path.exists():
        return open_table(path)  # which says what is missing
    raise DataError(
        f"{path}: not a kind of file that is known; expected a folder of images, or one of {', '.join(known)}"
        f"{did_you_mean(path.suffix, known)}"
    )


def _labels_of(path: Path) -> Path:
    """The IDX file of labels beside one of images, as MNIST names them."""
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if labels == path or not labels.is_file():
        raise FileError(f"{path}: its labels are looked for in {labels.name}, which is not there; put it beside it")
    return labels


def _of_arrays(found: Any, name: str) -> Any:
    table = _in_memory(found, name)
    if table is None:
        table = as_table(found, name)
    if table is None:
        kind = f"an array of shape {found.shape}" if isinstance(found, np.ndarray) else f"a {type(found).__name__}"
        raise DataError(f"{name}: holds {kind}; expected rows and targets: arrays called x and y, or a pair (x, y)")
    return table


def _in_memory(source: Any, name: str) -> Any:
    """A pair, a triple of pairs, a dict with x and y or a Dataset, as a table or as Arrays; None for something else."""
    if is_in_memory(source):
        source = source.tensors
    elif isinstance(source, Dataset) and not hasattr(source, "column_names"):
        source = _collated(source, name)
    elif isinstance(source, dict) and set(source) >= {"x", "y"} and _ndim(source["x"], name) > 1:
        source = (source["x"], source["y"])
    if not isinstance(source, tuple | list) or not 2 <= len(source) <= 3:
        return None
    if all(isinstance(part, tuple | list) and len(part) == 2 and _ndim(part[0], name) > 1 for part in source):
        pairs = [_pair(part, f"{name}, {what}") for part, what in zip(source, ("train", "valid", "test"), strict=False)]
        return Arrays(pairs[0], pairs[1], pairs[2] if len(pairs) == 3 else None)
    if len(source) != 2 or isinstance(source[0], dict) or _ndim(source[0], name) < 2:
        return None
    x, y = as_tensor(source[0], f"{name}: x"), source[1]
    if x.ndim > 2 or x.dtype is torch.uint8:
        return Arrays(_pair(source, name))
    _ndim(y, name, "y")
    y = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    _same_rows(x, y, name)
    return array_table(x.cpu().numpy(), y)


def _ndim(values: Any, name: str, part: str = "x") -> int:
    try:
        return np.ndim(values)
    except ValueError:
        raise DataError(f"{name}: {part} has rows of different lengths; expected as many numbers in each") from None


def _pair(pair: Any, name: str) -> Pair:
    x, y = as_tensor(pair[0], f"{name}: x"), as_tensor(pair[1], f"{name}: y")
    _same_rows(x, y, name)
    if not len(x):
        raise DataError(f"{name}: no rows; expected at least one")
    if not x.numel():
        raise DataError(f"{name}: x has shape {tuple(x.shape)}; expected at least one number in each row")
    return x, y


def _same_rows(x: Any, y: Any, name: str) -> None:
    if len(x) != len(y):
        raise DataError(f"{name}: x has {len(x)} rows and y has {len(y)}; expected as many")


def _collated(dataset: Any, name: str) -> Any:
    """All rows of a torch Dataset as a pair of tensors."""
    try:
        if not len(dataset):
            raise DataError(f"{name}: no rows; expected at least one")
        return default_collate([dataset[i] for i in range(len(dataset))])
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise DataError(
            f"{name}: its rows cannot be put into one tensor ({error}); expected rows (x, y) of tensors or numbers"
        ) from error
