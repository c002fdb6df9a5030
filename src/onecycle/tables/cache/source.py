"""A table or arrays in a file: their shape, their rows a chunk at a time, and the hash of the content."""

import json
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from onecycle.core.files import read_own, write_text
from onecycle.core.reading import open_for_reading
from onecycle.errors import FileError, OneCycleError
from onecycle.tables.cache.numpy_files import RowChunk, column_names, is_numpy_file, read_headers, stream_arrays
from onecycle.tables.cache.sizes import parse_memory_limit
from onecycle.tables.formats import FileShape
from onecycle.tables.read import is_table_file, stream_table, table_format
from onecycle.tables.values import import_pyarrow

_CHUNK_BYTES, _MAX_CHUNK_ROWS, _MIN_CHUNK_ROWS = 2**23, 65_536, 1_024
_HASH_BLOCK = 2**22  # bytes
_MTIME_RESOLUTION = 2.0  # seconds: a younger file may change without a change of its time
_HASHES = "hashes.json"
_MAX_HASHES = 1_000


def file_shape(path: Path) -> FileShape:
    """Return the shape by the headers of arrays, or as the format of a table says it.

    Raises what reading raises, and ValueError for arrays that cannot be streamed.
    """
    if not is_numpy_file(path):
        return table_format(path).shape(path)
    headers = read_headers(path)
    names, raw_inputs = column_names(headers)
    return FileShape(names, sum(header.row_bytes for header in headers), headers[0].shape[0], raw_inputs)


class SourceFile:
    """A table or arrays in the file at `path`, whose chunks of rows depend on nothing but the file.

    `text_columns` are the columns that `stream_table` reads as text. Raises what reading raises, and ValueError for
    arrays that cannot be streamed.
    """

    def __init__(self, path: Path, text_columns: Collection[str] = ()) -> None:
        self.path, self.shape, self._text_columns = path, file_shape(path), text_columns
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
            for batch in stream_table(self.path, rows, self._text_columns):
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
    path: Path, memory_limit: int | str | None = None, text_columns: Collection[str] = ()
) -> SourceFile | None:
    """Return the file if preparing it in memory would take more than the limit (see `parse_memory_limit`).

    None if it fits, cannot be streamed, or cannot be read, which reading it into memory will explain.
    """
    limit = parse_memory_limit(memory_limit)
    if is_table_file(path) or is_numpy_file(path):
        with suppress(OneCycleError, OSError, ValueError, StopIteration):
            source = SourceFile(path, text_columns)
            return source if source.shape.working_bytes > limit else None
    return None


def _read_hashes(cache: Path) -> dict[str, Any]:
    """Return the recorded hashes by path; none if the file is missing or damaged."""
    with suppress(OSError, ValueError, TypeError):
        return dict(json.loads(read_own(cache / _HASHES)))
    return {}
