"""Files that something is wrong with, made in the current folder."""

import gzip
import io
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from PIL import Image

from onecycle.core.archives import MANIFEST, manifest_text

Make = Callable[[], object]


def signed(folder: Path, kind: str = "bundle") -> None:
    """Writes the manifest of a folder of ours anew, so that what was changed in it is read."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    (folder / MANIFEST).write_text(manifest_text(kind, files))


ROWS = 60
X = np.random.default_rng(0).normal(size=(ROWS, 3))
Y = np.arange(ROWS) % 2
WORDS = ["a", "b"] * (ROWS // 2)
PIXELS = np.random.default_rng(1).integers(0, 255, (ROWS, 4, 4), np.uint8)


def both(*makes: Make) -> Make:
    """Does one after the other."""
    return lambda: [make() for make in makes]


def written(name: str, content: str | bytes) -> Make:
    """Writes a file."""
    return lambda: Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


def csv_text(rows: int = 40) -> str:
    """A good table as CSV."""
    return "age,town,group\n" + "".join(f"{20 + i * 0.37 % 5:.2f},{'UVW'[i % 3]},{'ab'[i % 2]}\n" for i in range(rows))


def good(**columns: Any) -> pa.Table:
    """A good table of 60 rows, or one with other columns."""
    usual = {"age": X[:, 0], "town": ["Ulm", "Bonn", "Kiel"] * (ROWS // 3), "group": WORDS}
    return pa.table({**usual, **columns})


def parquet(name: str, table: pa.Table | None = None) -> Make:
    """Writes a table: a good one, or the one given."""
    return lambda: pq.write_table(good() if table is None else table, name)


def cut(make: Make, name: str, share: float = 0.5) -> Make:
    """Makes a file and leaves only the first part of it."""

    def shorten() -> None:
        make()
        content = Path(name).read_bytes()
        Path(name).write_bytes(content[: int(len(content) * share)])

    return shorten


def feather(name: str) -> Make:
    """Writes a table as Arrow, in more than one batch."""
    return lambda: pyarrow.feather.write_feather(pa.concat_tables([good()] * 9), name, chunksize=99)


def zstd(name: str, content: str) -> Make:
    """Writes a file, packed."""
    return written(name, pa.compress(content.encode(), "zstd", asbytes=True))


def gzipped(name: str, content: str | bytes) -> Make:
    """Writes a file, packed."""
    return written(name, gzip.compress(content.encode() if isinstance(content, str) else content, mtime=0))


def npz(name: str, **arrays: Any) -> Make:
    """Writes arrays."""
    return lambda: np.savez(name, **arrays)


def npy(name: str, array: Any) -> Make:
    """Writes an array."""
    return lambda: np.save(name, array)


def pickled(name: str, value: Any, protocol: int = 4) -> Make:
    """Writes a pickle."""
    return written(name, pickle.dumps(value, protocol))


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch was-run",)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    """An array of bytes as IDX."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def photos(
    sizes: Sequence[tuple[int, int]] = ((6, 6),), classes: Sequence[str] = ("dark", "light"), count: int = 20
) -> Make:
    """Makes the folder "photos", with a sub-folder of images for each class."""

    def make() -> None:
        random = np.random.default_rng(2)
        for shade, label in enumerate(classes):
            folder = Path("photos", label)
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(200 * shade, 200 * shade + 50, sizes[i % len(sizes)], np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")

    return make


def bomb_gz(name: str, head: bytes, filling: bytes, gib: float = 3) -> Make:
    """Writes a small gzip file that becomes `gib` GiB: `head`, and `filling` over and over."""
    step = filling * (2**24 // len(filling))
    return written(name, gzip.compress(head, mtime=0) + gzip.compress(step, mtime=0) * round(gib * 2**30 / len(step)))


def bomb_npz(name: str, gib: int = 3) -> Make:
    """Writes a small npz whose array x becomes `gib` GiB of zeros."""

    def make() -> None:
        head = io.BytesIO()
        shape = {"descr": "|u1", "fortran_order": False, "shape": (ROWS, gib * 2**30 // ROWS)}
        np.lib.format.write_array_header_1_0(head, shape)
        packer, zeros = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(2**24)
        start = packer.compress(head.getvalue()) + packer.flush(zlib.Z_FULL_FLUSH)
        step = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)  # stands for itself, so it can come again
        data = start + step * (gib * 64) + packer.flush()
        entry = zipfile.ZipInfo("x.npy")
        entry.CRC = entry.header_offset = 0  # which nobody gets to check
        entry.compress_type, entry.compress_size, entry.file_size = zipfile.ZIP_DEFLATED, len(data), gib * 2**30
        with zipfile.ZipFile(name, "w") as archive:
            archive.fp.write(entry.FileHeader() + data)
            archive.filelist.append(entry)
            archive.start_dir = archive.fp.tell()
            archive._didModify = True

    return make


def image_bomb(name: str) -> Make:
    """Writes a small PNG of 400 million pixels."""

    def make() -> None:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        chunk = partial(_png_chunk, 20_000)
        row = zlib.compressobj(9)
        data = row.compress(bytes(2501)) + row.flush()
        Path(name).write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", None) + chunk(b"IDAT", data) + chunk(b"IEND", b""))

    return make


def _png_chunk(side: int, kind: bytes, data: bytes | None) -> bytes:
    data = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0]) if data is None else data
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
