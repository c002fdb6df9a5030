"""Images: PNG and JPEG files decoded with Pillow, and folders of them with one sub-folder for each class."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from onecycle.core.checks import check_int
from onecycle.core.reading import open_for_reading, unreadable, utf8_text
from onecycle.errors import DataError, FileError, SettingError, printable, warn_user

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

_SUFFIXES = (".png", ".jpg", ".jpeg")
_SPLITS = {"train", "training", "valid", "validation", "val", "test", "testing"}
_THREADS = 8
_CHUNK = 64  # images that are decoded before the next are begun


def decode_image(path: Path) -> "PillowImage":
    """Decode a PNG or JPEG file, turned upright as its EXIF data says; gray of 16 bits becomes 8 bits.

    Raises FileError if the file is missing, damaged, of another format, or has so many pixels that Pillow takes it for
    a decompression bomb.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    with open_for_reading(path) as file:
        try:
            image = Image.open(file, formats=["PNG", "JPEG"])
            # Pillow itself only warns between this many pixels and twice as many
            if Image.MAX_IMAGE_PIXELS and math.prod(image.size) > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{image.size[0]} x {image.size[1]} pixels")
            image.load()
            image.getexif()  # parsed and remembered: with its bytes gone, exif_transpose does not write the tags anew,
            image.info.pop("exif", None)  # which fails for the broken ones that some cameras make
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):  # 16 bits, of which Pillow's own conversion would cut off the upper ones
                return Image.fromarray((np.array(image) // 257).astype(np.uint8))
            return image
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise FileError(f"{path}: an image too large to be read safely ({error}); make it smaller") from error
        except UnidentifiedImageError as error:  # its text names Python objects
            file.seek(0)
            start = file.read(8)
            content = f"begins with {start!r}" if start else "empty"
            raise FileError(
                f"{path}: not a PNG or JPEG image, or a damaged one ({content}); expected a whole one; save it again"
            ) from error
        except Exception as error:  # Pillow raises errors of many kinds for damaged images
            raise FileError(f"{path}: a damaged image ({error}); expected a whole one; save it again") from error


def read_gray(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read an image as gray values of (height, width), 0 black.

    What is transparent becomes white, or black if the rest is light. Raises FileError as `decode_image` does.
    """
    image = decode_image(path)
    if not _is_transparent(image):
        return np.array(image.convert("L"))
    light, opacity = np.moveaxis(np.array(image.convert("RGBA").convert("LA"), np.float32), -1, 0)
    opacity /= 255
    background = 0 if (light * opacity).sum() > 127 * opacity.sum() else 255
    return np.round(light * opacity + background * (1 - opacity)).astype(np.uint8)


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder, by class."""

    x: Tensor  # uint8 of (n, height, width) if all images are gray, else of (n, 3, height, width)
    y: Tensor  # index of each image's class in `classes`, int64 of (n,)
    classes: list[str]  # names of the sub-folders
    files: list[Path]


def read_image_folder(folder: str | os.PathLike[str], size: int | tuple[int, int] | None = None) -> ImageFolder:
    """Read the PNG and JPEG images in the sub-folders of `folder`, at any depth; a sub-folder's name is the class.

    Images are ordered by class, then by path. If one has colors, all have three channels. Transparent pixels become
    white; photographs are turned as their EXIF data says. `size`, a side or (height, width), scales each image to that,
    bilinearly. Hidden files are left out; so are other files, with a warning.

    Raises SettingError for a bad `size`; FileError for a folder that is missing, and for an image that is damaged or
    a decompression bomb; DataError for fewer than two classes, and without `size` for images of different sizes.
    """
    folder, scale = Path(folder), None if size is None else _height_and_width(size)
    by_class = _images_by_class(folder)
    files = [file for images in by_class.values() for file in images]
    y = torch.repeat_interleave(torch.tensor([len(images) for images in by_class.values()]))
    return ImageFolder(read_images(files, scale), y, list(map(utf8_text, by_class)), files)


def _height_and_width(size: Any) -> tuple[int, int]:
    sides: Any = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2:
        raise SettingError(f"size is {size!r}; expected a side, or (height, width)")
    return check_int(sides[0], "size", least=1), check_int(sides[1], "size", least=1)


def _images_by_class(folder: Path) -> dict[str, list[Path]]:
    """List the images of each class, in order. Warns about files that are left out."""
    if folder.is_file():
        raise FileError(f"{folder}: a file; expected a folder with a sub-folder of images for each class")
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
        files = {name: _visible_files(folder / name) for name in names if (folder / name).is_dir()}
    except OSError as error:
        raise unreadable(folder, error) from error
    if files and {name.lower() for name in files} <= _SPLITS:
        raise DataError(
            f"{folder}: the sub-folders are {', '.join(files)}, which are splits, not classes; expected a sub-folder "
            f"for each class; read one of them, for example {folder / next(iter(files))}"
        )
    by_class = {name: [path for path in paths if _is_image(path)] for name, paths in files.items()}
    by_class = {name: images for name, images in by_class.items() if images}
    if len(by_class) < 2:
        classes = f'one class, "{next(iter(by_class))}"' if by_class else "no sub-folders with PNG or JPEG images"
        raise DataError(f"{folder}: {classes}; expected a sub-folder of images for each of two classes or more")
    left_out = [str(path.relative_to(folder)) for paths in files.values() for path in paths if not _is_image(path)]
    left_out += [name for name in names if name not in by_class]
    if left_out:
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        message = f"{folder}: left out, not images of a class: {', '.join(left_out[:5])}{more}"
        warn_user(printable(message))
    return by_class


def _visible_files(folder: Path) -> list[Path]:
    """List all files below `folder` that are neither hidden nor in a hidden folder, nor in a linked one."""
    files: list[Path] = []  # not by rglob, which passes over folders that cannot be read
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        files += [entry] if not entry.is_dir() else [] if entry.is_symlink() else _visible_files(entry)
    return sorted(files)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES


def read_images(files: Sequence[Path], size: tuple[int, int] | None) -> Tensor:
    """Read the pixels of all files into one tensor, which is filled while they are decoded."""
    x, read = torch.empty(0), partial(_read_pixels, size=size)
    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(files), _CHUNK):
            for i, image in enumerate(pool.map(read, files[start : start + _CHUNK]), start):
                shape = image.shape[-2:]
                if i == 0:
                    x = torch.empty((len(files), *image.shape), dtype=torch.uint8)
                elif shape != x.shape[-2:]:
                    raise DataError(
                        f"{files[i]} has {shape[0]} x {shape[1]} pixels (height x width), {files[0]} has "
                        f"{x.shape[-2]} x {x.shape[-1]}; expected one size; say which one to scale them all to: "
                        "--image-size 28, or in Python image_size=28"
                    )
                if image.ndim == 3 and x.ndim == 3:  # the first with colors
                    gray, x = x, torch.empty((len(files), 3, *shape), dtype=torch.uint8)
                    x[:i] = gray[:i, None]
                    del gray
                x[i] = image
    return x


def _read_pixels(path: Path, size: tuple[int, int] | None) -> Tensor:
    """Read one image as uint8 of (height, width), or of (3, height, width) if it has colors."""
    from PIL import Image

    image = _gray_or_rgb(decode_image(path))
    if size:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image))
    return pixels if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _gray_or_rgb(image: "PillowImage") -> "PillowImage":
    """Convert an image to mode L or RGB, on white where it is transparent."""
    from PIL import Image

    is_gray = image.mode in ("1", "L", "LA")
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
        is_gray = bool((palette == palette[:, :1]).all())
    if _is_transparent(image):
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("L" if is_gray else "RGB")


def _is_transparent(image: "PillowImage") -> bool:
    return "A" in image.getbands() or "transparency" in image.info
