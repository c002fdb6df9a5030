"""The rows of a table to predict, in pieces: its columns, and what the model of a table makes of them."""

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from onecycle.cli.digits import framed, white_on_black
from onecycle.data.arrays import as_tensor, read_npy, read_npz
from onecycle.data.images import read_gray
from onecycle.data.sources import array_table, open_source
from onecycle.errors import DataError, FileError
from onecycle.predictor import Predictor
from onecycle.tables.read import is_table_file, read_table, stream_table

if TYPE_CHECKING:
    from onecycle.tables.features import Features
    from onecycle.tables.target import Target

Array = np.ndarray[Any, Any]
_HIGHEST_SCALED = 1.5  # scaled pixels are at most 1, with some room for who scaled them otherwise
_ARRAYS, PICTURES = (".npy", ".npz"), (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class RowBatch:
    """Some rows: the columns that are kept of them (a pyarrow Table), the model's input, and the targets if known."""

    table: Any
    x: Tensor
    y: Tensor | None = None


def read_rows(file: Path, learn: Predictor) -> Iterator[RowBatch]:
    """The rows of a file of arrays, of an image or of a folder of images, for a model that takes no tables."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    suffix, shape = file.suffix.lower(), learn.input_shape
    if learn.target is not None and (file.is_dir() or suffix in PICTURES):
        yield _images(file, shape)
        return
    known = (*_ARRAYS, *PICTURES)
    if suffix not in known:
        raise FileError(f"{file}: expected a file ending in {', '.join(known)}")
    if suffix in PICTURES:
        rows = shaped(_read_digit(file, shape), shape, file)
    else:
        rows = shaped(read_npy(file) if suffix == ".npy" else _array_of(file, "x"), shape, file)
    x, dtype = as_tensor(scaled(rows, learn.pixel_scale, file), str(file)), learn.input_dtype
    x = x.to(dtype) if dtype is not None and dtype.is_floating_point else x
    yield RowBatch(pa.table({"row": pa.array(np.arange(len(x)))}), x)


def scaled(rows: Array, pixel_scale: float | None, file: Path) -> Array:
    """Whole numbers as the pixels that the model was trained on; floats, and rows that are no images, as they are.

    Raises DataError for whole numbers that are no pixels; floats that cannot have been scaled get a warning.
    """
    if rows.dtype.kind not in "biuf":
        return rows
    if pixel_scale is None or rows.dtype.kind == "b" or not rows.size:
        return rows.astype(np.float32)
    if rows.dtype.kind in "iu":
        _check_pixels(rows, file)
        return rows.astype(np.float32) / pixel_scale
    highest = float(rows.max())
    if highest > _HIGHEST_SCALED:
        print(
            f"warning: {file} has values up to {highest:g}; the model was trained on pixels from 0 to 1: "
            f"were they divided by {pixel_scale:g}?",
            file=sys.stderr,
        )
    return rows.astype(np.float32)


def shaped(numbers: Array, shape: torch.Size | None, file: Path) -> Array:
    """`numbers` as (rows, *shape): one row or many, each as the model takes it, or flat, or as a square image.

    Raises DataError where they are no such rows, or there are none.
    """
    if shape is None:
        return numbers
    size = math.prod(shape)
    side = math.isqrt(size)
    square = [(side, side)] if side * side == size else []
    forms: dict[tuple[int, ...], None] = dict.fromkeys([tuple(shape), (size,), *square])
    if numbers.size and (numbers.shape in forms or numbers.shape[1:] in forms):
        return numbers.reshape(-1, *shape)
    expected = " or ".join(f"{form} or {('n', *form)}".replace("'", "") for form in forms)
    raise DataError(f"{file}: holds an array of shape {numbers.shape}; expected {expected}, with at least one row")


def _check_pixels(rows: Array, file: Path) -> None:
    wrong = np.argwhere((rows < 0) | (rows > 255))
    if len(wrong):
        where = tuple(wrong[0].tolist())
        raise DataError(
            f"{file} contains {rows[where]} at row {where[0] if where else 0} ({len(wrong)} such values); whole "
            "numbers are pixels: expected 0 to 255; give other numbers as floats, scaled as in training"
        )


def _read_digit(file: Path, shape: torch.Size | None) -> Array:
    """A drawing, made to look like the digits of MNIST."""
    size = math.prod(shape or ())
    if shape is None or math.isqrt(size) ** 2 != size:
        raise DataError(f"{file}: an image, but the model does not take square gray images; give a npy or npz file")
    image, inverted = white_on_black(read_gray(file), str(file))
    if inverted:
        print(f"{file}: dark on light; inverted, since the model expects white on black", file=sys.stderr)
    return framed(image, math.isqrt(size))


def _array_of(file: Path, name: str) -> Array:
    """The array called `name` in a npz, or the only one in it."""
    arrays = read_npz(file)
    if name in arrays or len(arrays) == 1:
        return arrays.get(name, next(iter(arrays.values())))
    raise DataError(f"{file}: holds the arrays {', '.join(arrays) or '(none)'}; expected one, or one called {name}")


def _images(file: Path, shape: torch.Size | None) -> RowBatch:
    """An image, or all in a folder, each scaled to what the model takes."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    from onecycle.data.images import read_images

    if shape is None or len(shape) not in (2, 3):
        raise DataError(f"{file}: an image, but the model was trained on rows of shape {tuple(shape or ())}")
    found = sorted(path for path in file.rglob("*") if path.suffix.lower() in PICTURES) if file.is_dir() else [file]
    if not found:
        raise FileError(f"{file}: no PNG or JPEG images in this folder; expected at least one")
    pixels = read_images(found, (shape[-2], shape[-1]))
    if len(shape) == 2 and pixels.ndim == 4:  # colours, for a model of gray images
        weights = torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)
        pixels = (pixels * weights).sum(1).round().to(torch.uint8)
    elif len(shape) == 3 and pixels.ndim == 3:
        pixels = pixels[:, None].expand(-1, shape[0], -1, -1).contiguous()
    names = [str(path.relative_to(file)) if file.is_dir() else path.name for path in found]
    return RowBatch(pa.table({"file": names}), pixels)


ROWS = 65_536  # at a time, where the table is streamed


def read_table_rows(
    file: Path, features: "Features", target: "Target | None", stream: bool, scored: bool
) -> Iterator[RowBatch]:
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
        yield RowBatch(table, x, y)
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
