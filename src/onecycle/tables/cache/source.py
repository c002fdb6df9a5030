"""A table or arrays in a file: their shape, their rows a chunk at a time, and the hash of the content."""

import json
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from onecycle.core.files import write_text
from onecycle.core.reading import open_for_reading
from onecycle.errors import FileError, OneCycleError
from onecycle.tables.cache.numpy_files import RowChunk, column_names, is_numpy_file, read_headers, stream_arrays
from onecycle.tables.cache.sizes import parse_memory_limit
from onecycle.tables.csv_file import inspect_csv
from onecycle.tables.file_bytes import COMPRESSIONS, DecompressedFile
from onecycle.tables.read import is_table_file, stream_table
from onecycle.tables.values import import_pyarrow

_PARQUET, _ARROW = (".parquet", ".pq"), (".arrow", ".feather", ".ipc")
_SAMPLE_ROWS, _SAMPLE_BYTES = 10_000, 2**20
_MIN_CELL_BYTES, _FLOAT32_BYTES = 8, 4
_TABLE_COPIES = 2  # in memory at once: the table as it was read, and its training rows
_CHUNK_BYTES, _MAX_CHUNK_ROWS, _MIN_CHUNK_ROWS = 2**23, 65_536, 1_024
_HASH_BLOCK = 2**22  # bytes
_MTIME_RESOLUTION = 2.0  # seconds: a younger file may change without a change of its time
_HASHES = "hashes.json"
_MAX_HASHES = 1_000


@dataclass(frozen=True)
class FileShape:
    """The columns and the size of a table; the size is estimated where the file does not say it."""

    names: list[str]  # with raw_inputs those of the target only
    row_bytes: int  # in memory
    rows: int
    raw_inputs: bool = False  # the inputs are an array that is used unchanged, such as images

    @property
    def working_bytes(self) -> int:
        """About how much memory preparing it takes: the table, its training rows, and their matrix of float32."""
        return self.rows * (_TABLE_COPIES * self.row_bytes + _FLOAT32_BYTES * len(self.names))


def file_shape(path: Path) -> FileShape:
    """Return the shape by the footer of Parquet and Arrow, the headers of arrays, the size and first bytes of CSV.

    Raises what reading raises, and ValueError for arrays that cannot be streamed.
    """
    name = path.name.lower()
    if is_numpy_file(path):
        headers = read_headers(path)
        names, raw_inputs = column_names(headers)
        return FileShape(names, sum(header.row_bytes for header in headers), headers[0].shape[0], raw_inputs)
    if not name.endswith((*_PARQUET, *_ARROW)):
        return _csv_shape(path, ".tsv" in "".join(Path(name).suffixes[-2:]))
    batch = next(stream_table(path, rows=_SAMPLE_ROWS))
    row_bytes = max(batch.nbytes // batch.num_rows, 1)
    rows = _footer_rows(path, "parquet" if name.endswith(_PARQUET) else "ipc")
    return FileShape(batch.schema.names, row_bytes, rows or path.stat().st_size // row_bytes)


def _footer_rows(path: Path, file_format: str) -> int | None:
    """Return the number of rows by the footer; None for an Arrow stream, which has none."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
    import pyarrow.dataset  # pyright: ignore[reportMissingTypeStubs] -- it has none

    try:
        return pyarrow.dataset.dataset(str(path), format=file_format).count_rows()
    except pa.ArrowException:
        return None


def _csv_shape(path: Path, tabs: bool) -> FileShape:
    names = inspect_csv(path, "\t" if tabs else None, None).names
    with DecompressedFile(path) as content:
        head = content.read(_SAMPLE_BYTES)
    line_bytes = len(head) / max(head.count(b"\n"), head.count(b"\r"), 1)
    packing = COMPRESSIONS.get(path.suffix.lower())
    packed = head if packing is None else import_pyarrow()[0].compress(head, codec=packing)
    rows = path.stat().st_size * max(len(head) / len(packed), 1) / line_bytes
    return FileShape(names, int(max(line_bytes, _MIN_CELL_BYTES * len(names))), int(rows))


class SourceFile:
    """A table or arrays in the file at `path`, whose chunks of rows depend on nothing but the file.

    `as_written` names the columns of a CSV file that are read as text. Raises what reading raises, and ValueError for
    arrays that cannot be streamed.
    """

    def __init__(self, path: Path, as_written: Collection[str] = ()) -> None:
        self.path, self.shape, self._as_written = path, file_shape(path), as_written
        self._size_and_mtime = self._stat()

    def chunks(self) -> Iterator[RowChunk]:
        """Yield all rows in order.

        Raises what reading raises, and FileError if the file was changed since it was opened first.
        """
        rows = max(min(_CHUNK_BYTES // max(self.shape.row_bytes, 1), _MAX_CHUNK_ROWS), _MIN_CHUNK_ROWS)
        if is_numpy_file(self.path):
            yield from stream_arrays(self.path, rows)
        else:
            pa, _ = import_pyarrow()
            for batch in stream_table(self.path, rows, self._as_written):
                yield RowChunk(pa.Table.from_batches([batch]))
        self._check_unchanged()

    def known_sha256(self, cache: Path) -> str | None:
        """Return the SHA-256 that the folder `cache` has on record, unless the file was written to since."""
        with suppress(KeyError, TypeError, ValueError):
            size_and_mtime, digest = _read_hashes(cache)[str(self.path.resolve())]
            return str(digest) if size_and_mtime == self._size_and_mtime else None
        return None

    def compute_sha256(self, cache: Path) -> str:
        """Return the SHA-256 of the file's content, and record it in the folder `cache`."""
        total = sha256()
        with open_for_reading(self.path) as file:
            while data := file.read(_HASH_BLOCK):
                total.update(data)
        self._check_unchanged()
        if time.time() - self._size_and_mtime[1] / 1e9 > _MTIME_RESOLUTION:
            path, hashes = str(self.path.resolve()), _read_hashes(cache)
            hashes.pop(path, None)
            newest = dict([*hashes.items()][-_MAX_HASHES + 1 :]) | {path: [self._size_and_mtime, total.hexdigest()]}
            write_text(cache / _HASHES, json.dumps(newest, indent=0) + "\n")
        return total.hexdigest()

    def _stat(self) -> list[int]:
        with open_for_reading(self.path):
            stat = self.path.stat()
        return [stat.st_size, stat.st_mtime_ns]

    def _check_unchanged(self) -> None:
        if self._stat() != self._size_and_mtime:
            raise FileError(f"{self.path}: was changed while it was read; try again when nothing writes to it")


def open_if_larger(
    path: Path, memory_limit: int | str | None = None, as_written: Collection[str] = ()
) -> SourceFile | None:
    """Return the file if preparing it in memory would take more than the limit (see `parse_memory_limit`).

    None if it fits, cannot be streamed, or cannot be read, which reading it into memory will explain.
    """
    limit = parse_memory_limit(memory_limit)
    if is_table_file(path) or is_numpy_file(path):
        with suppress(OneCycleError, OSError, ValueError, StopIteration):
            source = SourceFile(path, as_written)
            return source if source.shape.working_bytes > limit else None
    return None


def _read_hashes(cache: Path) -> dict[str, Any]:
    """Return the recorded hashes by path; none if the file is missing or damaged."""
    with suppress(OSError, ValueError, TypeError):
        return dict(json.loads((cache / _HASHES).read_text("utf-8")))
    return {}
