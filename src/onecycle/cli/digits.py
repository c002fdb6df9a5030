"""Drawings of digits made to look like MNIST's: white ink on black, in a box in the middle, centered by its mass."""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from onecycle.errors import DataError

Array = np.ndarray[Any, Any]

_BOX = 20 / 28  # fraction of the side that MNIST's digits fill
_MIN_CONTRAST = 8  # of 255: less comes from compression, not from a pen
_FULL_RANGE = 240  # each digit of MNIST reaches 254
_INK = 0.2  # fraction of the lightest pixel: fainter ones are the shade of the paper or the fringe of a stroke


def white_on_black(image: Array, name: str) -> tuple[Array, bool]:
    """Return a gray image (uint8) with light ink on a dark background, and whether it was inverted for that.

    The background is the median of the border, the ink what differs from it most. The contrast is stretched to 0-255
    unless it is that already. Raises DataError, naming `name`, if all pixels are alike.
    """
    low, high = int(image.min()), int(image.max())
    if high - low < _MIN_CONTRAST:
        values = str(low) if low == high else f"{low} to {high}"
        raise DataError(
            f"{name} has no contrast: all its pixels are {values} (of 255); expected a digit that is lighter or darker "
            "than its background"
        )
    border = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
    background = int(np.sort(border)[len(border) // 2])
    difference = image.astype(np.float32) - background
    ink = np.abs(difference) > np.abs(difference).max() / 2
    inverted = bool(difference[ink].mean() < 0)
    if high - low < _FULL_RANGE or background not in (low, high):
        return _stretched(-difference if inverted else difference), inverted
    return (255 - image if inverted else image), inverted


def framed(image: Array, side: int) -> Array:
    """Return the ink of a white-on-black image placed as in MNIST, in a square of `side` pixels.

    As http://yann.lecun.com/exdb/mnist says: the ink is cut out, scaled to fit 20 of 28 pixels with its aspect ratio
    and antialiased edges, and its center of mass put in the middle. An image of that size already is left alone.
    """
    if image.shape == (side, side):
        return image
    ink = image > _INK * image.max()
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    digit = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = round(side * _BOX) / max(digit.shape)
    size = [max(1, round(length * scale)) for length in digit.shape]
    pixels = torch.from_numpy(digit.astype(np.float32))[None, None]
    scaled = F.interpolate(pixels, size, mode="bilinear", antialias=True)[0, 0].numpy()
    digit = _stretched(scaled)  # the stroke of a fine pen becomes faint when it is scaled down
    top, left = (_start(digit.sum(axis=1 - axis), side) for axis in (0, 1))
    square = np.zeros((side, side), np.uint8)
    square[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return square


def _stretched(pixels: Array) -> Array:
    """Return the pixels above 0 spread to 0-255."""
    return np.round(pixels.clip(0) * (255 / pixels.max())).astype(np.uint8)


def _start(mass: Array, side: int) -> int:
    """Return where an axis begins so that its center of mass is in the middle of `side` and nothing falls off."""
    center = float((mass * np.arange(len(mass))).sum() / mass.sum())
    return min(max(math.ceil(side / 2 - center - 0.5), 0), side - len(mass))
