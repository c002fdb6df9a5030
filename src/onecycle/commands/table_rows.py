"""The rows of a table to predict, in pieces: its columns, and what the model of a table makes of them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from onecycle.commands.rows import PICTURES, Piece
from onecycle.core.errors import DataError, FileError
from onecycle.data.readers import read_npy, read_npz
from onecycle.data.sources import array_table, open_source
from onecycle.tables.files.read import is_table_file, read_table, stream_table

if TYPE_CHECKING:
    from onecycle.tables.features import Features
    from onecycle.tables.target import Target

ROWS = 65_536  # at a time, where the table is streamed


def read_table_rows(
    file: Path, features: "Features", target: "Target | None", stream: bool, scored: bool
) -> Iterator[Piece]:
    """The rows of a table or of arrays for a model of tables, with `scored` their targets too where it has them.

    With `stream` a file of columns is read in pieces of ROWS. Raises DataError, naming the file, for a column that is
    missing and for a cell that cannot be used.
    """
    first = 0
    texts = [*features.as_written]
    if target is not None and all(isinstance(label, str) for label in target.classes or [0]):
        texts += target.names
    for table in _tables(file, texts, stream):
        try:
            x = torch.from_numpy(features.transform(table, first))
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
        y = None
        if scored and target is not None and set(target.names) <= set(table.schema.names):
            y = _targets(file, table, target, first)
            scored = y is not None
        yield Piece(table, x, y)
        first += table.num_rows


def _targets(file: Path, table: Any, target: "Target", first: int) -> Tensor | None:
    """The targets of a table, or None, with a word on why, where they are not all known."""
    try:
        return torch.from_numpy(target.transform(table, "this file", first))
    except DataError as error:
        print(f"{file}: no scores, because {error}", file=sys.stderr)
        return None


def _tables(file: Path, texts: list[str], stream: bool) -> Iterator[Any]:
    """The file's rows; the columns `texts` of a CSV file stay as they are written."""
    if is_table_file(file) and stream:
        import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

        for batch in stream_table(file, ROWS, texts):
            yield pa.Table.from_batches([batch])
    elif is_table_file(file):
        yield read_table(file, texts)
    else:
        yield _array_table(file)


def _array_table(file: Path) -> Any:
    """Arrays as the table that training made of them: columns x0, x1, …, and y where it is there."""
    suffix = file.suffix.lower()
    if file.is_dir() or suffix in PICTURES:
        raise FileError(
            f"{file}: the model was trained on a table; expected one with its columns, or a npy or npz file"
        )
    if suffix not in (".npy", ".npz"):
        table = open_source(file)
        if not hasattr(table, "schema"):
            raise DataError(f"{file}: holds images; the model was trained on a table: expected one with its columns")
        return table
    arrays = {"x": read_npy(file)} if suffix == ".npy" else read_npz(file)
    if "x" not in arrays and len(arrays) != 1:
        raise DataError(f"{file}: holds the arrays {', '.join(arrays) or '(none)'}; expected one, or one called x")
    x = arrays.get("x", next(iter(arrays.values())))
    x = x[None] if x.ndim == 1 else x
    if x.ndim != 2 or not x.size or x.dtype.kind not in "biuf":
        raise DataError(f"{file}: holds an array of {x.dtype} of shape {x.shape}; expected numbers (rows, columns)")
    y = arrays.get("y")
    return array_table(x, y if y is not None and len(y) == len(x) else None)
