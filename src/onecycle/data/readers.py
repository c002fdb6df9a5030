"""One reader for each file format of arrays and images."""

import importlib
import math
import os
import warnings
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, BinaryIO

import numpy as np

from onecycle.core.reading import MAX_BYTES, Budget, open_for_reading, read_unpacked
from onecycle.errors import FileError, OneCycleError, SettingError, UnsafeFileError

Numbers = np.ndarray[Any, np.dtype[Any]]  # what a file holds is only known when it is read
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> Numbers:
    """Read an IDX file (the format of MNIST, http://yann.lecun.com/exdb/mnist), gzip-compressed or not.

    Returns a writable array of the shape and type that the file states, for MNIST uint8 of (n, 28, 28) or (n,).
    Raises FileError when the file is missing, damaged, not IDX or unpacks to more than `max_bytes` (2 GiB;
    of a packed file 128 MiB or 200 times its size, unless another number is given).
    """
    return idx_array(read_unpacked(Path(path), max_bytes), Path(path))


def idx_array(content: bytearray, path: Path) -> Numbers:
    """The array in the bytes of an IDX file; `path` is for messages. Raises FileError as `read_idx` does."""
    # two zero bytes, a type byte, the number of dimensions, each dimension in 4 bytes, the numbers: all big-endian
    if len(content) < 4 or not content.startswith(b"\0\0") or content[2] not in _IDX_TYPES or content[3] == 0:
        raise FileError(
            f"{path}: starts with the bytes {content[:4].hex(' ')}; expected an IDX file: 00 00, a type from 08 to 0e, "
            "the number of dimensions"
        )
    dtype, start = np.dtype(_IDX_TYPES[content[2]]), 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise FileError(
            f"{path}: {len(content):,} bytes; expected {expected:,} for shape {shape} of {dtype.name}; "
            "copy or download it again"
        )
    if len(shape) > 32:  # what every NumPy can hold
        raise FileError(f"{path}: {len(shape)} dimensions; expected at most 32")
    numbers = np.frombuffer(content, dtype, offset=start) if expected > start else np.empty(0, dtype)
    try:
        return numbers.astype(dtype.newbyteorder("="), copy=False).reshape(shape)
    except ValueError as error:  # no numbers, in a shape beyond what NumPy counts
        raise FileError(f"{path}: shape {shape} is too large; copy or download it again") from error


def read_npy(path: str | os.PathLike[str]) -> Numbers:
    """Read the array in a .npy file.

    Raises UnsafeFileError for an array of Python objects, FileError for a file that is missing, damaged or not .npy.
    """
    path = Path(path)
    with open_for_reading(path) as file:
        return _npy(file, path)


def read_npz(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> dict[str, Numbers]:
    """Read every array in an .npz file: name → array.

    Raises UnsafeFileError for an array of Python objects; FileError for a file that is missing, damaged, not .npz, or
    unpacks to more than `max_bytes` (2 GiB).
    """
    path = Path(path)
    try:
        with open_for_reading(path) as file, zipfile.ZipFile(file) as archive:
            budget = Budget(path, max_bytes)
            for entry in archive.infolist():
                budget.spend(entry.file_size)  # zipfile never unpacks more of an entry than this
            arrays: dict[str, Numbers] = {}
            for entry in archive.infolist():
                with archive.open(entry) as packed:
                    arrays[entry.filename.removesuffix(".npy")] = _npy(packed, path)
            return arrays
    except OneCycleError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise FileError(f"{path}: damaged or no .npz file ({error}); expected arrays saved with numpy.savez") from error


def read_png(path: str | os.PathLike[str], size: tuple[int, int] | None = None) -> Numbers:
    """Read a PNG image as grey values: uint8 of (height, width), 0 black.

    `size` = (height, width) scales the image to that. Needs Pillow. Raises SettingError without it; FileError for a
    file that is missing, damaged, no PNG, or an image so large that Pillow takes it for a decompression bomb.
    What is transparent becomes white, or black where the rest is light.
    """
    path = Path(path)
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise SettingError(f"size is {size}; expected (height, width), each at least 1")
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise SettingError('reading images needs Pillow; install it with pip install "onecycle[images]"') from error
    with open_for_reading(path) as file:
        _check_signature(file, path)
        try:
            image = pillow.open(file, formats=["PNG"])
            # Pillow itself only warns between this many pixels and twice as many
            if pillow.MAX_IMAGE_PIXELS and math.prod(image.size) > pillow.MAX_IMAGE_PIXELS:
                raise pillow.DecompressionBombError(f"{image.size[0]} x {image.size[1]} pixels")
            grey = pillow.fromarray(_grey(image))
        except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
            raise FileError(f"{path}: an image too large to be read safely ({error}); make it smaller") from error
        except pillow.UnidentifiedImageError as error:  # whose text is of Python objects
            raise FileError(f"{path}: a damaged PNG (it has no readable header); expected a whole one") from error
        except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:  # all that Pillow raises for bad PNGs
            raise FileError(f"{path}: a damaged PNG ({error}); expected a whole one") from error
    if size is not None:
        grey = grey.resize((size[1], size[0]))
    return np.array(grey, np.uint8)


def _check_signature(file: BinaryIO, path: Path) -> None:
    """Raises FileError where `file` does not begin as a PNG does. Leaves it at its start."""
    found = file.read(len(_PNG))
    file.seek(0)
    if not found:
        raise FileError(f"{path}: empty; expected a PNG image")
    if found.startswith(_JPEG):
        raise FileError(f"{path} is a JPEG, whatever its name; expected a PNG: save it as one")
    if found != _PNG:
        raise FileError(f"{path} is not a PNG (it begins with {found!r}); expected a PNG image: save it as one")


def _grey(image: Any) -> Numbers:
    """The grey values of a Pillow image, uint8."""
    if image.mode.startswith("I"):  # 16 bits, of which Pillow would cut off the upper ones
        return (np.array(image) // 257).astype(np.uint8)
    if "A" not in image.getbands() and "transparency" not in image.info:
        return np.array(image.convert("L"))
    light, opacity = np.moveaxis(np.array(image.convert("RGBA").convert("LA"), np.float32), -1, 0)
    opacity /= 255
    ground = 0 if (light * opacity).sum() > 127 * opacity.sum() else 255
    return np.round(light * opacity + ground * (1 - opacity)).astype(np.uint8)


def _npy(file: IO[bytes], path: Path) -> Numbers:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # files of Python 2 and old names of dtypes are read all the same
            return np.lib.format.read_array(file, allow_pickle=False)
    except (
        ArithmeticError,
        EOFError,
        MemoryError,
        RecursionError,
        SyntaxError,
        TokenError,
        TypeError,
        ValueError,
    ) as error:
        if "allow_pickle" in str(error):  # NumPy has no error of its own for it
            raise UnsafeFileError(
                f"{path}: holds an array of Python objects, which could run code when loaded; expected numbers; "
                "save it again with a numeric dtype"
            ) from error
        raise FileError(f"{path}: damaged or no .npy array ({error}); expected one saved with numpy.save") from error
