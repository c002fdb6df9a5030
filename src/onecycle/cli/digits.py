"""A drawing, made to look like MNIST's digits: white ink on black, in a box in the middle, centred by its mass."""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from onecycle.errors import DataError

Array = np.ndarray[Any, Any]

_BOX = 20 / 28  # of the side is what MNIST's digits fill
_LEAST_CONTRAST = 8  # of 255: what is below comes from compression, not from a pen
_FULL_RANGE = 240  # each digit of MNIST reaches 254
_INK = 0.2  # of the lightest pixel: what is fainter is the shade of the paper or the fringe of a stroke


def white_on_black(image: Array, name: str) -> tuple[Array, bool]:
    """A gray image (uint8) with light ink on a dark ground, and whether it had to be inverted for that.

    The ground is the median of the border, the ink what differs from it most. The contrast is stretched to 0-255 where
    it is not that already. Raises DataError, naming `name`, where every pixel is the same.
    """
    low, high = int(image.min()), int(image.max())
    if high - low < _LEAST_CONTRAST:
        found = str(low) if low == high else f"{low} to {high}"
        raise DataError(
            f"{name} has no contrast: all its pixels are {found} (of 255); expected a digit that is lighter or darker "
            "than its background"
        )
    border = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
    ground = int(np.sort(border)[len(border) // 2])
    difference = image.astype(np.float32) - ground
    ink = np.abs(difference) > np.abs(difference).max() / 2
    inverted = bool(difference[ink].mean() < 0)
    if high - low < _FULL_RANGE or ground not in (low, high):
        return _stretched(-difference if inverted else difference), inverted
    return (255 - image if inverted else image), inverted


def framed(image: Array, side: int) -> Array:
    """The ink of a white-on-black image where MNIST has it, in a square of `side` pixels.

    As http://yann.lecun.com/exdb/mnist says: the ink is cut out, scaled to fit 20 of 28 pixels with its aspect ratio
    kept and edges antialiased, and its centre of mass put in the middle. An image of that size already is left alone.
    """
    if image.shape == (side, side):
        return image
    digit = _scaled_to_fit(_cut_out(image), round(side * _BOX))
    top, left = (_start(digit.sum(axis=1 - axis), side) for axis in (0, 1))
    square = np.zeros((side, side), np.uint8)
    square[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return square


def _stretched(pixels: Array) -> Array:
    """The pixels above 0 spread to 0-255."""
    return np.round(pixels.clip(0) * (255 / pixels.max())).astype(np.uint8)


def _cut_out(image: Array) -> Array:
    ink = image > _INK * image.max()
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _scaled_to_fit(digit: Array, box: int) -> Array:
    scale = box / max(digit.shape)
    size = [max(1, round(length * scale)) for length in digit.shape]
    pixels = torch.from_numpy(digit.astype(np.float32))[None, None]
    scaled = F.interpolate(pixels, size, mode="bilinear", antialias=True)[0, 0].numpy()
    return _stretched(scaled)  # the stroke of a fine pen becomes faint when it is scaled down


def _start(mass: Array, side: int) -> int:
    """Where an axis begins so that its centre of mass comes to the middle of `side`, and nothing falls off."""
    centre = float((mass * np.arange(len(mass))).sum() / mass.sum())
    return min(max(math.ceil(side / 2 - centre - 0.5), 0), side - len(mass))
