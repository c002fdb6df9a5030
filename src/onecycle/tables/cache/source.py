"""A file that is read more than once, piece by piece: its rows, and what tells it from other files."""

import json
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from onecycle.core.files import write_text
from onecycle.core.reading import open_for_reading
from onecycle.errors import FileError, OneCycleError
from onecycle.tables.cache.arrays import Piece, is_array_file, stream_arrays
from onecycle.tables.cache.progress import Progress
from onecycle.tables.cache.sizes import shape_of
from onecycle.tables.read import is_table_file, stream_table
from onecycle.tables.values import import_pyarrow

_PIECE_BYTES, _MOST_ROWS, _FEWEST_ROWS = 2**23, 65_536, 1_024
_READ = 2**22  # bytes
_TICK = 2.0  # seconds: a file that is younger may change without its time changing
_KNOWN = "hashes.json"
_MOST_KNOWN = 1_000


class Source:
    """A table or arrays in the file at `path`. Its rows come in pieces that depend on nothing but the file.

    `text` names the columns of a CSV file that are kept as written. Raises what reading raises, and ValueError for
    arrays that cannot be streamed.
    """

    def __init__(self, path: Path, text: Collection[str] = ()) -> None:
        self.path, self.shape, self._text = path, shape_of(path), text
        self._stat = self._found()
        self._rows: int | None = None  # how many there are, once they were counted

    @classmethod
    def larger_than(cls, path: Path, memory_limit: int, text: Collection[str] = ()) -> "Source | None":
        """The file, where preparing it in memory would take more than the limit.

        None where it fits, is no file that can be streamed, or cannot be looked into, which reading it will explain.
        """
        if is_table_file(path) or is_array_file(path):
            with suppress(OneCycleError, OSError, ValueError, StopIteration):
                source = cls(path, text)
                return source if source.shape.working_bytes > memory_limit else None
        return None

    def pieces(self, what: str, progress: Progress) -> Iterator[tuple[int, Piece]]:
        """The number of the first row of each piece, and the piece.

        Raises what reading raises, and FileError for a file that was changed meanwhile.
        """
        done = 0
        for piece in self._pieces():
            yield done, piece
            done += piece.table.num_rows
            progress.update(what, done, self._rows)
        self._check_unchanged()
        self._rows = done

    def _pieces(self) -> Iterator[Piece]:
        rows = max(min(_PIECE_BYTES // max(self.shape.row_bytes, 1), _MOST_ROWS), _FEWEST_ROWS)
        if is_array_file(self.path):
            yield from stream_arrays(self.path, rows)
            return
        pa, _ = import_pyarrow()
        for batch in stream_table(self.path, rows, self._text):
            yield Piece(pa.Table.from_batches([batch]))

    def sha256(self, folder: Path, progress: Progress) -> str:
        """The SHA-256 of the file's content; `folder` remembers it for as long as the file is not written to."""
        place, stat = str(self.path.resolve()), list(self._stat)
        known: dict[str, Any] = {}
        with suppress(OSError, ValueError, TypeError):
            known = dict(json.loads((folder / _KNOWN).read_text("utf-8")))
        with suppress(KeyError, TypeError, ValueError):
            size_and_time, found = known[place]
            if size_and_time == stat:
                return str(found)
        progress.say(f"{self.path}: larger than memory_limit; looking for what was made of it before")
        total = sha256()
        with open_for_reading(self.path) as file:
            while piece := file.read(_READ):
                total.update(piece)
        self._check_unchanged()
        if time.time() - self._stat[1] / 1e9 > _TICK:
            known.pop(place, None)
            kept = dict([*known.items()][-_MOST_KNOWN + 1 :]) | {place: [stat, total.hexdigest()]}
            write_text(folder / _KNOWN, json.dumps(kept, indent=0) + "\n")
        return total.hexdigest()

    def _found(self) -> tuple[int, int]:
        with open_for_reading(self.path):
            found = self.path.stat()
        return found.st_size, found.st_mtime_ns

    def _check_unchanged(self) -> None:
        if self._found() != self._stat:
            raise FileError(f"{self.path}: was changed while it was read; try again when nothing writes to it")
