"""`onecycle predict`: a bundle and a file → the class of each row."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from onecycle.commands.files import MODEL, RECORD
from onecycle.core.errors import DataError, FileError
from onecycle.data.readers import read_npy, read_npz, read_png
from onecycle.data.tensors import as_tensor
from onecycle.learner import load_learner

Array = np.ndarray[Any, Any]


def predict(run: Path, file: Path, device: str | None, as_json: bool) -> int:
    """Print the prediction for each row of `file`; the exit code."""
    learn = load_learner(_bundle(run), device=device)
    read = _READERS.get(file.suffix.lower())
    if read is None:
        raise FileError(f"{file}: expected a file ending in {', '.join(_READERS)}")
    rows = shaped(scaled(read(file, learn.input_shape), learn.pixel_scale), learn.input_shape, file)
    output = learn.get_preds(as_tensor(rows, str(file)))[0].numpy()
    found = [_prediction(row, learn.classes) for row in output]
    if as_json:
        print(json.dumps({"predictions": found}))
    else:
        for row in found:
            print(*row.values(), sep="\t")
    return 0


def scaled(numbers: Array, pixel_scale: float | None) -> Array:
    """Whole numbers as the pixels that the model was trained on; floats, and rows that are no images, as they are."""
    if numbers.dtype.kind not in "biuf":
        return numbers
    values = numbers.astype(np.float32)
    return values / pixel_scale if pixel_scale is not None and numbers.dtype.kind in "iu" else values


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


def white_on_black(image: Array) -> tuple[Array, bool]:
    """A gray image as MNIST has it, and whether it had to be inverted: its corners were light."""
    light = image[[0, 0, -1, -1], [0, -1, 0, -1]].mean() > 127
    return (255 - image if light else image), bool(light)


def fitted(image: Array, side: int) -> Array:
    """A gray image on a black square, scaled to `side` pixels."""
    height, width = image.shape
    longest = max(height, width)
    top, left = (longest - height) // 2, (longest - width) // 2
    square = np.pad(image, ((top, longest - height - top), (left, longest - width - left)))
    if longest == side:
        return square
    pixels = torch.from_numpy(square.astype(np.float32))[None, None]
    smaller = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return smaller[0, 0].round().to(torch.uint8).numpy()


def _read_image(file: Path, shape: torch.Size | None) -> Array:
    size = math.prod(shape or ())
    if shape is None or math.isqrt(size) ** 2 != size:
        raise DataError(f"{file}: an image, but the model does not take square gray images; give a npy or npz file")
    image, inverted = white_on_black(read_png(file))
    if inverted:
        print(f"{file}: dark on light; inverted, since the model expects white on black", file=sys.stderr)
    return fitted(image, math.isqrt(size))


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
    """The bundle in the folder of a run, or `run` itself where it is one."""
    return run / MODEL if (run / MODEL).is_dir() or (run / RECORD).is_file() else run


def _prediction(row: Array, classes: list[Any] | None) -> dict[str, Any]:
    if classes is None:  # regression
        return {"value": row.squeeze().tolist()}
    best = int(row.argmax())
    return {"class": classes[best] if best < len(classes) else best, "probability": round(float(row[best]), 6)}
