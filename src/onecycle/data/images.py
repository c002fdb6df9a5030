"""A folder of images, one sub-folder for each class."""

import importlib
import math
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onecycle.core.checks import check_int
from onecycle.core.reading import open_for_reading, unreadable
from onecycle.errors import DataError, FileError, SettingError

_SUFFIXES = (".png", ".jpg", ".jpeg")
_SPLITS = {"train", "training", "valid", "validation", "val", "test", "testing"}
_THREADS = 8
_AT_ONCE = 64  # images that are decoded before the next are begun
_ORIENTATION = 0x0112  # the number of the EXIF tag whose values are these
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@dataclass(frozen=True)
class ImageFolder:
    """Images by class: x is uint8 of (n, height, width) where all are gray, else of (n, 3, height, width).

    y is int64: the place in `classes` of each image's class.
    """

    x: Tensor
    y: Tensor
    classes: list[str]
    files: list[Path]


def read_image_folder(folder: str | os.PathLike[str], size: int | tuple[int, int] | None = None) -> ImageFolder:
    """Read the PNG and JPEG images in the sub-folders of `folder`, at any depth; a sub-folder's name is the class.

    They come by class, then by path. Where one has colours, all have three channels. What is transparent becomes
    white; a photograph is turned as its camera says. `size`, a side or (height, width), scales each image to that,
    bilinearly. Hidden files are left out; so are other files, with a warning.

    Needs Pillow; raises SettingError without it, and for a `size` that is none. Raises FileError for a folder that is
    missing, and for an image that is damaged, or so large that Pillow takes it for a decompression bomb; DataError for
    fewer than two classes, and without `size` for images of different sizes.
    """
    folder, scale = Path(folder), None if size is None else _height_and_width(size)
    by_class = _images(folder)
    files = [file for images in by_class.values() for file in images]
    y = torch.repeat_interleave(torch.tensor([len(images) for images in by_class.values()]))
    return ImageFolder(read_images(files, scale), y, list(by_class), files)


def _height_and_width(size: Any) -> tuple[int, int]:
    sides: Any = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2:
        raise SettingError(f"size is {size!r}; expected a side, or (height, width)")
    return check_int(sides[0], "size", least=1), check_int(sides[1], "size", least=1)


def _images(folder: Path) -> dict[str, list[Path]]:
    """The images of each class, in order. Warns of what is left out."""
    if folder.is_file():
        raise FileError(f"{folder}: a file; expected a folder with a sub-folder of images for each class")
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        folders = [name for name in names if (folder / name).is_dir()]
        found = {name: _visible_files(folder / name) for name in folders}
    except OSError as error:
        raise unreadable(folder, error) from error
    if folders and {name.lower() for name in folders} <= _SPLITS:
        raise DataError(
            f"{folder}: the sub-folders are {', '.join(folders)}, which are splits, not classes; expected a sub-folder "
            f"for each class; read one of them, for example {folder / folders[0]}"
        )
    by_class = {name: [file for file in files if _is_image(file)] for name, files in found.items()}
    if len(by_class := {name: images for name, images in by_class.items() if images}) < 2:
        classes = f'one class, "{next(iter(by_class))}"' if by_class else "no sub-folders with PNG or JPEG images"
        raise DataError(f"{folder}: {classes}; expected a sub-folder of images for each of two classes or more")
    left_out = [str(file.relative_to(folder)) for files in found.values() for file in files if not _is_image(file)]
    left_out += [name for name in names if name not in by_class]
    if left_out:
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        warnings.warn(f"{folder}: left out, as no images of a class: {', '.join(left_out[:5])}{more}", stacklevel=3)
    return by_class


def _visible_files(folder: Path) -> list[Path]:
    """All files below `folder` that are not hidden, nor in a hidden folder."""
    files: list[Path] = []
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        files += [entry] if not entry.is_dir() else [] if entry.is_symlink() else _visible_files(entry)
    return sorted(files)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES


def read_images(files: list[Path], scale: tuple[int, int] | None) -> Tensor:
    """The pixels of all files in one tensor, which is filled as they are decoded."""
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise SettingError('reading images needs Pillow; install it with pip install "onecycle[images]"') from error
    x, decode = torch.empty(0), partial(_decoded, pillow=pillow, scale=scale)
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(files), _AT_ONCE):
            for i, image in enumerate(pool.map(decode, files[start : start + _AT_ONCE]), start):
                shape = image.shape[-2:]
                if i == 0:
                    x = torch.empty((len(files), *image.shape), dtype=torch.uint8)
                elif shape != x.shape[-2:]:
                    raise DataError(
                        f"{files[i]} has {shape[0]} x {shape[1]} pixels (height x width), {files[0]} has "
                        f"{x.shape[-2]} x {x.shape[-1]}; expected one size; say which one to scale them all to: "
                        "--image-size 28, or in Python image_size=28"
                    )
                if image.ndim == 3 and x.ndim == 3:  # the first with colours
                    gray, x = x, torch.empty((len(files), 3, *shape), dtype=torch.uint8)
                    x[:i] = gray[:i, None]
                    del gray
                x[i] = image
    return x


def _decoded(path: Path, pillow: Any, scale: tuple[int, int] | None) -> Tensor:
    """One image as uint8 of (height, width), or of (3, height, width) where it has colours."""
    with open_for_reading(path) as file:
        try:
            image = pillow.open(file, formats=["PNG", "JPEG"])
            # Pillow itself only warns between this many pixels and twice as many
            if pillow.MAX_IMAGE_PIXELS and math.prod(image.size) > pillow.MAX_IMAGE_PIXELS:
                raise pillow.DecompressionBombError(f"{image.size[0]} x {image.size[1]} pixels")
            image.load()
            turn = image.getexif().get(_ORIENTATION)
            image = _gray_or_rgb(image, pillow)
        except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
            raise FileError(f"{path}: an image too large to be read safely ({error}); make it smaller") from error
        except pillow.UnidentifiedImageError as error:  # whose text is of Python objects
            raise FileError(
                f"{path}: no PNG or JPEG image, or a damaged one; expected a whole one; save it again"
            ) from error
        except Exception as error:  # Pillow raises errors of many kinds for damaged images
            raise FileError(f"{path}: a damaged image ({error}); expected a whole one; save it again") from error
    if turn in _TURNS:
        image = image.transpose(pillow.Transpose[_TURNS[turn]])
    if scale:
        image = image.resize((scale[1], scale[0]), pillow.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image))
    return pixels if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _gray_or_rgb(image: Any, pillow: Any) -> Any:
    """A Pillow image in mode L or RGB, on white where it is transparent."""
    gray = image.mode in ("1", "L", "LA") or image.mode.startswith("I")
    if image.mode.startswith("I"):  # 16 bits, of which Pillow would cut off the upper ones
        return pillow.fromarray((np.array(image) // 257).astype(np.uint8))
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
        gray = bool((palette == palette[:, :1]).all())
    if "A" in image.getbands() or "transparency" in image.info:
        opaque = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", opaque.size, "white"), opaque)
    return image.convert("L" if gray else "RGB")
