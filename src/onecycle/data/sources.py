"""Open any data source, a file, a folder or an object, as a table or as arrays."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from onecycle.data.arrays import as_tensor, is_in_memory, read_idx, read_npy, read_npz
from onecycle.data.images import read_image_folder
from onecycle.data.pickles import load_pickle
from onecycle.errors import DataError, FileError, did_you_mean
from onecycle.tables.adapters import as_column, as_table, open_table, table_name
from onecycle.tables.features import check_columns
from onecycle.tables.normalize import normalize_table
from onecycle.tables.read import FORMATS, is_table_file, read_columns

Pair = tuple[Tensor, Tensor]
PIXEL_SCALE = 256.0  # the lesson's: pixel / 256
TARGET = "y"  # name of the target column of arrays
_SETS = ("train", "valid", "test")
_PICKLE, _IDX = (".pkl", ".pickle"), (".idx", "-ubyte")


@dataclass(frozen=True)
class Arrays:
    """Rows and targets that are not a table: images, or anything of more than two dimensions."""

    train: Pair  # to be split if there is no `valid`
    valid: Pair | None = None
    test: Pair | None = None
    classes: list[str] | None = None  # names of the classes that the targets number

    @property
    def pixel_scale(self) -> float | None:
        """Divisor of the inputs: bytes are pixels."""
        return PIXEL_SCALE if self.train[0].dtype is torch.uint8 else None


def open_source(source: Any, image_size: int | tuple[int, int] | None = None, text_columns: Sequence[str] = ()) -> Any:
    """Open `source` as a pyarrow.Table or as Arrays.

    Takes the path of a table (CSV, Parquet, Arrow), of arrays (npy, npz, IDX, NumPy pickle) or of a folder of images by
    class; a table in memory; a pair (x, y); a dict of both; a torch Dataset. Rows of numbers become a table with the
    columns x0, x1, … and y. The columns `text_columns` of a file without types, such as CSV, stay
    text. Raises DataError or FileError for anything else, and for what cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        if not os.fspath(source):  # which pathlib takes for the current folder
            raise FileError('the path is ""; expected that of a file or folder')
        return _open_path(Path(source), image_size, text_columns)
    opened = _from_memory(source, table_name(source))
    return open_table(source) if opened is None else opened


def table_of_rows(rows: Any, columns: Sequence[str], text_columns: Sequence[str] = ()) -> Any:
    """Open rows to predict as a pyarrow.Table: a path or a table as `open_source` takes them, or an array (n, columns).

    Returns None for anything else, such as a loader. Raises DataError if one of the `columns` is missing; the others in
    a file may hold anything.
    """
    if isinstance(rows, str | os.PathLike):
        table, needed = read_columns(Path(rows), text_columns, columns)
        check_columns(table, columns)
        return needed
    if isinstance(rows, Tensor | np.ndarray):
        array = as_tensor(rows, "rows", keep_float64=True).cpu().numpy()
        if array.ndim != 2:
            raise DataError(f"rows have shape {array.shape}; expected (n, columns)")
        return array_table(array)
    return as_table(rows)


def array_table(x: Any, y: Any = None) -> Any:
    """Return rows of numbers (n, columns) as a table of the columns x0, x1, … and, if targets are given, y."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    columns: dict[str, Any] = {
        f"x{i}": as_column(np.ascontiguousarray(column), f"x{i}") for i, column in enumerate(x.T)
    }
    if y is not None:
        targets = y.T if y.ndim == 2 else [y]
        names = [TARGET] if len(targets) == 1 else [f"{TARGET}{i}" for i in range(len(targets))]
        columns |= {name: as_column(target, name) for name, target in zip(names, targets, strict=True)}
    return pa.table(columns) if y is None else normalize_table(pa.table(columns), "rows and targets")


def _open_path(path: Path, image_size: int | tuple[int, int] | None, text_columns: Sequence[str]) -> Any:
    if is_table_file(path):
        return open_table(path, text_columns)
    if path.is_dir():
        images = read_image_folder(path, image_size)
        return Arrays((images.x, images.y), classes=list(images.classes))
    name = path.name.lower()
    unpacked_name = name.removesuffix(".gz")
    if name.endswith(".npy"):
        content: Any = read_npy(path)
    elif name.endswith(".npz"):
        content = read_npz(path)
    elif unpacked_name.endswith(_PICKLE):
        content = load_pickle(path)
    elif unpacked_name.endswith(_IDX):
        content = read_idx(path), read_idx(_idx_labels(path))
    elif not path.exists():
        return open_table(path)  # whose error says what is missing
    else:
        suffixes = (*FORMATS, ".npy", ".npz", *_PICKLE, *_IDX)
        raise DataError(
            f"{path}: not a kind of file that is known; expected a folder of images, or one of {', '.join(suffixes)}"
            f"{did_you_mean(path.suffix, suffixes)}"
        )
    opened = _from_memory(content, str(path))
    if opened is None:
        opened = as_table(content, str(path))
    if opened is None:
        kind = (
            f"an array of shape {content.shape}" if isinstance(content, np.ndarray) else f"a {type(content).__name__}"
        )
        raise DataError(f"{path}: holds {kind}; expected rows and targets: arrays called x and y, or a pair (x, y)")
    return opened


def _idx_labels(path: Path) -> Path:
    """Find the IDX file of labels beside one of images, named as MNIST names them."""
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if labels == path or not labels.is_file():
        raise FileError(f"{path}: its labels are looked for in {labels.name}, which is not there; put it beside it")
    return labels


def _from_memory(source: Any, name: str) -> Any:
    """Convert a pair, two or three pairs, a dict with x and y or a Dataset to a table or Arrays.

    Returns None for anything else. `name` is for messages.
    """
    if is_in_memory(source):
        source = source.tensors
    elif isinstance(source, Dataset) and not hasattr(source, "column_names"):
        source = _collate(source, name)
    elif isinstance(source, dict) and set(source) >= {"x", "y"} and _ndim(source["x"], name) > 1:
        source = (source["x"], source["y"])
    if not isinstance(source, tuple | list) or not 2 <= len(source) <= 3:
        return None
    if all(isinstance(pair, tuple | list) and len(pair) == 2 and _ndim(pair[0], name) > 1 for pair in source):
        pairs = [_as_pair(pair, f"{name}, {which}") for pair, which in zip(source, _SETS, strict=False)]
        return Arrays(pairs[0], pairs[1], pairs[2] if len(pairs) == 3 else None)
    if len(source) != 2 or isinstance(source[0], dict) or _ndim(source[0], name) < 2:
        return None
    x, y = as_tensor(source[0], f"{name}: x", keep_float64=True), source[1]
    if x.ndim > 2 or x.dtype is torch.uint8:
        return Arrays(_as_pair(source, name))
    _ndim(y, name, "y")
    y = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asanyarray(y)
    _check_same_length(x, y, name)
    return array_table(x.cpu().numpy(), y)


def _ndim(values: Any, name: str, part: str = "x") -> int:
    try:
        return np.ndim(values)
    except ValueError:
        raise DataError(f"{name}: {part} has rows of different lengths; expected equal lengths") from None


def _as_pair(pair: Any, name: str) -> Pair:
    x, y = as_tensor(pair[0], f"{name}: x"), as_tensor(pair[1], f"{name}: y", keep_float64=True)
    _check_same_length(x, y, name)
    if not len(x):
        raise DataError(f"{name}: no rows; expected at least one")
    if not x.numel():
        raise DataError(f"{name}: x has shape {tuple(x.shape)}; expected at least one number in each row")
    return x, y


def _check_same_length(x: Any, y: Any, name: str) -> None:
    if not np.ndim(y):
        raise DataError(f"{name}: y is a single number; expected one for each row")
    if len(x) != len(y):
        raise DataError(f"{name}: x has {len(x)} rows and y has {len(y)}; expected equal lengths")


def _collate(dataset: Any, name: str) -> Any:
    """Return all rows of a torch Dataset as a pair of tensors."""
    try:
        if not len(dataset):
            raise DataError(f"{name}: no rows; expected at least one")
        return default_collate([dataset[i] for i in range(len(dataset))])
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise DataError(
            f"{name}: its rows cannot be put into one tensor ({error}); expected rows (x, y) of tensors or numbers"
        ) from error
