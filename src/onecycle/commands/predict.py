"""`onecycle predict`: a bundle and a file → the class of each row."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onecycle.commands.files import BUNDLE_STATE, MODEL, RECORD
from onecycle.commands.images import framed, white_on_black
from onecycle.core.errors import DataError, FileError
from onecycle.data.readers import read_npy, read_npz, read_png
from onecycle.data.tensors import as_tensor
from onecycle.learner import load_learner

Array = np.ndarray[Any, Any]
_HIGHEST_SCALED = 1.5  # scaled pixels are at most 1, with some room for who scaled them otherwise


def predict(run: Path, file: Path, device: str | None, as_json: bool) -> int:
    """Print the prediction for each row of `file`; the exit code."""
    learn = load_learner(_bundle(run), device=device)
    read = _READERS.get(file.suffix.lower())
    if read is None:
        raise FileError(f"{file}: expected a file ending in {', '.join(_READERS)}")
    rows = scaled(shaped(read(file, learn.input_shape), learn.input_shape, file), learn.pixel_scale, file)
    output = learn.get_preds(as_tensor(rows, str(file)))[0].numpy()
    found = [_prediction(row, learn.classes) for row in output]
    if as_json:
        print(json.dumps({"predictions": found}))
    else:
        for row in found:
            print(*row.values(), sep="\t")
    return 0


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


def _check_pixels(rows: Array, file: Path) -> None:
    wrong = np.argwhere((rows < 0) | (rows > 255))
    if len(wrong):
        where = tuple(wrong[0].tolist())
        raise DataError(
            f"{file} contains {rows[where]} at row {where[0] if where else 0} ({len(wrong)} such values); whole "
            "numbers are pixels: expected 0 to 255; give other numbers as floats, scaled as in training"
        )


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


def _read_image(file: Path, shape: torch.Size | None) -> Array:
    size = math.prod(shape or ())
    if shape is None or math.isqrt(size) ** 2 != size:
        raise DataError(f"{file}: an image, but the model does not take square gray images; give a npy or npz file")
    image, inverted = white_on_black(read_png(file), str(file))
    if inverted:
        print(f"{file}: dark on light; inverted, since the model expects white on black", file=sys.stderr)
    return framed(image, math.isqrt(size))


def _read_npz(file: Path, _: torch.Size | None) -> Array:
    arrays = read_npz(file)
    if "x" in arrays or len(arrays) == 1:
        return arrays.get("x", next(iter(arrays.values())))
    raise DataError(f"{file}: holds the arrays {', '.join(arrays) or '(none)'}; expected one, or one called x")


_READERS: dict[str, Callable[[Path, torch.Size | None], Array]] = {
    ".npy": lambda file, _: read_npy(file),
    ".npz": _read_npz,
    ".png": _read_image,
}


def _bundle(run: Path) -> Path:
    """The bundle in the folder of a run, or `run` itself where it is one.

    Raises FileError for a file, and for a folder that holds neither.
    """
    if run.is_file():
        raise FileError(f"{run} is a file; the RUN folder comes first: onecycle predict RUN FILE")
    if (run / MODEL).is_dir() or (run / RECORD).is_file():
        return run / MODEL
    if run.is_dir() and not (run / BUNDLE_STATE).is_file():
        raise FileError(
            f"{run} holds no run or bundle; expected a folder that `onecycle train` or `learn.export` wrote"
        )
    return run


def _prediction(row: Array, classes: list[Any] | None) -> dict[str, Any]:
    if classes is None:  # regression
        return {"value": row.squeeze().tolist()}
    best = int(row.argmax())
    return {"class": classes[best] if best < len(classes) else best, "probability": round(float(row[best]), 6)}
