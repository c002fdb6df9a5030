"""Reads the rows that `onecycle predict` predicts: of a table, of arrays, or of images."""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from onecycle.cli.digits import framed, white_on_black
from onecycle.cli.table_writer import TEXT_SUFFIXES
from onecycle.cli.terminal import print_lines
from onecycle.core.reading import utf8_text
from onecycle.data.arrays import as_tensor, read_npy, read_npz
from onecycle.data.images import read_gray
from onecycle.data.sources import array_table, open_source
from onecycle.errors import DataError, FileError
from onecycle.predictor import Predictor
from onecycle.tables.read import is_table_file, read_columns, stream_as_written

if TYPE_CHECKING:
    from onecycle.tables.features import Features
    from onecycle.tables.target import Target

Array = np.ndarray[Any, Any]
STREAMED_ROWS = 65_536  # in a batch of a table that is streamed
_ARRAY_SUFFIXES, _IMAGE_SUFFIXES = (".npy", ".npz"), (".png", ".jpg", ".jpeg")
_MAX_SCALED = 1.5  # scaled pixels are at most 1, with some room for other ways to scale them
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


@dataclass(frozen=True)
class RowBatch:
    """Some rows: the columns to write beside predictions (a pyarrow Table), the model's input, the targets if known."""

    table: Any
    x: Tensor
    y: Tensor | None = None


def read_rows(file: Path, predictor: Predictor, out: Path | None, with_targets: bool) -> Iterator[RowBatch]:
    """Yield the rows of a file as the model takes them.

    Args:
        file: A table or arrays for a model of a table; arrays, an image or a folder of images for other models.
        predictor: The model.
        out: Where the rows are going to be written, in batches of STREAMED_ROWS; None if they are not.
        with_targets: Read the targets too, if a table has them.

    Raises:
        FileError: If the file cannot be read, or is not of a kind that the model takes.
        DataError: If its rows do not fit the model.
    """
    if predictor.features is not None:
        yield from _table_rows(file, predictor.features, predictor.target, out, with_targets)
    elif predictor.target is not None and (file.is_dir() or file.suffix.lower() in _IMAGE_SUFFIXES):
        yield _image_rows(file, predictor.input_shape)
    else:
        yield _array_rows(file, predictor)


# --- tables ----------------------------------------------------------------------------------------------------------


def _table_rows(
    file: Path, features: "Features", target: "Target | None", out: Path | None, with_targets: bool
) -> Iterator[RowBatch]:
    from onecycle.tables.categories import UnseenValues
    from onecycle.tables.features import check_columns

    unseen = UnseenValues()
    first, columns = 0, features.inputs + (target.names if with_targets and target is not None else [])
    text_columns = [*features.text_columns]
    if target is not None and all(isinstance(label, str) for label in target.classes or [0]):
        text_columns += target.names
    for written, table in _read_tables(file, text_columns, columns, out):
        try:
            check_columns(written, features.inputs)
            x = torch.from_numpy(features.transform(table, first, unseen))
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
        y = None
        if with_targets and target is not None and set(target.names) <= set(table.schema.names):
            try:
                y = torch.from_numpy(target.transform(table, "this file", first))
            except DataError as error:
                print_lines(f"{file}: no scores, because {error}", file=sys.stderr)
                with_targets = False
        yield RowBatch(written, x, y)
        first += table.num_rows
    for message in unseen.messages():
        print_lines(f"warning: {file}: {message}", file=sys.stderr)


def _read_tables(
    file: Path, text_columns: list[str], columns: list[str], out: Path | None
) -> Iterator[tuple[Any, Any]]:
    """Yield the file's rows as they are written to `out`, and with those of `columns` that there are.

    `text_columns` of a file without types, such as CSV, are read as they are written.
    """
    if not is_table_file(file):
        table = _table_of_arrays(file)
        yield table, table
    elif out is not None:
        typed = out.suffix.lower() not in TEXT_SUFFIXES
        yield from stream_as_written(file, text_columns, columns, STREAMED_ROWS, typed)
    else:
        yield read_columns(file, text_columns, columns)


def _table_of_arrays(file: Path) -> Any:
    """Return arrays as the table that training made of them: columns x0, x1, …, and y if it is there."""
    suffix = file.suffix.lower()
    if file.is_dir() or suffix in _IMAGE_SUFFIXES:
        raise FileError(
            f"{file}: the model was trained on a table; expected one with its columns, or a npy or npz file"
        )
    if suffix not in _ARRAY_SUFFIXES:
        table = open_source(file)
        if not hasattr(table, "schema"):
            raise DataError(f"{file}: holds images; the model was trained on a table: expected one with its columns")
        return table
    arrays = {"x": read_npy(file)} if suffix == ".npy" else read_npz(file)
    x, y = _rows_array(arrays, file), arrays.get("y")
    x = x[None] if x.ndim == 1 else x
    if x.ndim != 2 or not x.size or x.dtype.kind not in "biuf":
        raise DataError(f"{file}: holds an array of {x.dtype} of shape {x.shape}; expected numbers (rows, columns)")
    return array_table(x, y if y is not None and y.ndim and len(y) == len(x) else None)


def _rows_array(arrays: Mapping[str, Array], file: Path) -> Array:
    """Return the array called x, or the only one."""
    if "x" not in arrays and len(arrays) != 1:
        raise DataError(f"{file}: holds the arrays {', '.join(arrays) or '(none)'}; expected one, or one called x")
    return arrays["x"] if "x" in arrays else next(iter(arrays.values()))


# --- arrays and images -----------------------------------------------------------------------------------------------


def _array_rows(file: Path, predictor: Predictor) -> RowBatch:
    """Return the rows of a npy or npz file, or of a drawing of a digit."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    suffix, shape, dtype = file.suffix.lower(), predictor.input_shape, predictor.input_dtype
    supported = (*_ARRAY_SUFFIXES, *_IMAGE_SUFFIXES)
    if suffix not in supported:
        raise FileError(f"{file}: expected a file ending in {', '.join(supported)}")
    if suffix in _IMAGE_SUFFIXES:
        values = _read_digit(file, shape)
    else:
        values = read_npy(file) if suffix == ".npy" else _rows_array(read_npz(file), file)
    rows = _scale(values if shape is None else _reshape(values, shape, file), predictor.pixel_scale, file, dtype)
    x = as_tensor(rows, str(file))
    x = x.to(dtype) if dtype is not None and dtype.is_floating_point else x
    return RowBatch(pa.table({"row": pa.array(np.arange(len(x)))}), x)


def _reshape(values: Array, shape: torch.Size, file: Path) -> Array:
    """Return `values` as (rows, *shape): one row or many, each as the model takes it, or flat, or as a square image.

    Raise DataError if they have another shape, or no rows.
    """
    size = math.prod(shape)
    side = math.isqrt(size)
    square = [(side, side)] if side * side == size else []
    forms: dict[tuple[int, ...], None] = dict.fromkeys([tuple(shape), (size,), *square])
    if values.size and (values.shape in forms or values.shape[1:] in forms):
        return values.reshape(-1, *shape)
    expected = " or ".join(f"{form} or {('n', *form)}".replace("'", "") for form in forms)
    raise DataError(f"{file}: holds an array of shape {values.shape}; expected {expected}, with at least one row")


def _scale(rows: Array, pixel_scale: float | None, file: Path, trained_on: torch.dtype | None) -> Array:
    """Return whole numbers as the pixels that the model was trained on, anything else as floats that are not scaled.

    Raise DataError for whole numbers that are not pixels; warn of bytes where the model was trained on floats, and of
    floats that cannot have been scaled.
    """
    if rows.dtype.kind not in "biuf":
        return rows
    is_float = trained_on is not None and trained_on.is_floating_point
    if pixel_scale is None and is_float and rows.dtype == np.uint8 and rows.size and rows.max() > 1:
        print_lines(
            f"warning: {file} holds bytes, up to {rows.max()}, and the model was trained on floats: they are taken as "
            "they are; if the floats were pixels divided by a number, divide these too",
            file=sys.stderr,
        )
    if pixel_scale is None or rows.dtype.kind == "b" or not rows.size:
        return rows.astype(np.float32)
    if rows.dtype.kind in "iu":
        wrong = np.argwhere((rows < 0) | (rows > 255))
        if len(wrong):
            index = tuple(wrong[0].tolist())
            raise DataError(
                f"{file} contains {rows[index]} at row {index[0] if index else 0} ({len(wrong)} such values); whole "
                "numbers are pixels: expected 0 to 255; give other numbers as floats, scaled as in training"
            )
        return rows.astype(np.float32) / pixel_scale
    highest = float(rows.max())
    if highest > _MAX_SCALED:
        print_lines(
            f"warning: {file} has values up to {highest:g}; the model was trained on pixels from 0 to 1: "
            f"were they divided by {pixel_scale:g}?",
            file=sys.stderr,
        )
    return rows.astype(np.float32)


def _read_digit(file: Path, shape: torch.Size | None) -> Array:
    """Return a drawing, made to look like the digits of MNIST."""
    size = math.prod(shape or ())
    if shape is None or math.isqrt(size) ** 2 != size:
        raise DataError(f"{file}: an image, but the model does not take square gray images; give a npy or npz file")
    image, inverted = white_on_black(read_gray(file), str(file))
    if inverted:
        print_lines(f"{file}: dark on light; inverted, since the model expects white on black", file=sys.stderr)
    return framed(image, math.isqrt(size))


def _image_rows(file: Path, shape: torch.Size | None) -> RowBatch:
    """Return an image, or all in a folder, each scaled to the size that the model takes."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    from onecycle.data.images import read_images

    if shape is None or len(shape) not in (2, 3):
        raise DataError(f"{file}: an image, but the model was trained on rows of shape {tuple(shape or ())}")
    folder = file if file.is_dir() else file.parent
    images = sorted(p for p in file.rglob("*") if p.suffix.lower() in _IMAGE_SUFFIXES) if file.is_dir() else [file]
    if not images:
        raise FileError(f"{file}: no PNG or JPEG images in this folder; expected at least one")
    pixels = read_images(images, (shape[-2], shape[-1]))
    if len(shape) == 2 and pixels.ndim == 4:  # colours, for a model of gray images
        pixels = (pixels * torch.tensor(_LUMA).reshape(3, 1, 1)).sum(1).round().to(torch.uint8)
    elif len(shape) == 3 and pixels.ndim == 3:
        pixels = pixels[:, None].expand(-1, shape[0], -1, -1).contiguous()
    return RowBatch(pa.table({"file": [utf8_text(str(path.relative_to(folder))) for path in images]}), pixels)
