"""Conversion of a table larger than memory to files of inputs and targets, which a loader reads."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from onecycle.core.streams import unfiltered
from onecycle.errors import SettingError, printable
from onecycle.tables.cache.folder import FORMAT, KEY_LENGTH, CacheEntry, Manifest, RowWriter, TableCache, row_file
from onecycle.tables.cache.numpy_files import RowChunk
from onecycle.tables.cache.rowwise_split import SETS, RowwiseSplit, SetCodes
from onecycle.tables.cache.sizes import cache_limit, format_size
from onecycle.tables.cache.source import SourceFile, open_if_larger
from onecycle.tables.features import Features
from onecycle.tables.file_bytes import COMPRESSIONS
from onecycle.tables.profile import ColumnProfile, TableProfiler
from onecycle.tables.read import naming_lines
from onecycle.tables.spec import TableSpec
from onecycle.tables.target import Target
from onecycle.tables.target_stats import TargetStats, check_task, collect_target_stats
from onecycle.tables.values import Array, import_pyarrow, update_all


class ConversionProgress:
    """Writes progress to `file` (default: stderr): a line that is overwritten in a terminal, else one now and then."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file: TextIO | None = file if file is not None else sys.stderr  # None without a console
        self._live = self._file is not None and self._file.isatty()
        self._interval = 0.2 if self._live else 10.0  # seconds
        self._next = time.monotonic() + self._interval
        self._width = 0  # characters of the line that is overwritten next

    def message(self, text: str) -> None:
        """Write a line that stays."""
        self._write(text, "\n")
        self._width = 0

    def update(self, activity: str, done: int, total: int | None) -> None:
        """Report `done` rows of `total` (None: unknown); shown only if the last report is long enough ago."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._interval
        rows = f"{done:,} of {total:,} rows ({done / total:.0%})" if total else f"{done:,} rows"
        self._write(f"{activity}: {rows}", "" if self._live else "\n")

    def _write(self, text: str, end: str) -> None:
        if self._file is not None:
            erase = "\r" + " " * self._width + "\r" if self._width else ""
            file, text = unfiltered(self._file), printable(text, one_line=True)
            file.write(erase + text + end)
            file.flush()
            self._width = len(text) if self._live else 0


def convert_if_larger(
    path: Path,
    spec: TableSpec,
    memory_limit: int | str | None = None,
    progress: ConversionProgress | None = None,
    fitted: tuple[Features | None, Target] | None = None,
) -> CacheEntry | None:
    """Convert a file that is too large to be prepared in memory, or find it converted; None if it fits.

    It is prepared as `fitted` says, or with the statistics of its training rows.

    A file that would take more than `memory_limit` is read chunk by chunk, three times, and its inputs and targets are
    written to the cache. The same content with the same spec is converted only once. Conversion needs memory for a few
    chunks of the table, whatever the limit.

    Raises SettingError if `spec` cannot be used, or has a split that needs the table in memory; FileError and DataError
    as reading and preparing the table in memory does; OutputError if the cache cannot be written, or is too small.
    """
    source = open_if_larger(path, memory_limit, spec.text_columns)
    if source is None:
        return None
    cache, progress = TableCache(), progress or ConversionProgress()
    conversion, limit = Conversion(source, spec, progress, fitted), cache_limit(cache.path)  # check the settings first
    progress.message(f"{path}: larger than memory_limit; looking it up among the converted tables")
    source_sha256 = source.sha256()
    key = _cache_key(path, source_sha256, conversion.spec, fitted)

    def build(folder: Path) -> Manifest:
        progress.message(f"{path}: converting it to files on the disk, once")
        manifest = conversion.run(folder, source_sha256, lambda size: cache.make_room(size, limit))
        if source.sha256() != source_sha256:
            raise source.changed()
        progress.message(f"converted to {format_size(manifest.bytes)} in {cache.path / key}")
        return manifest

    def on_damage(reason: str) -> None:
        progress.message(f"warning: the converted table is damaged ({reason}); converting it again")

    return cache.open_or_build(key, build, on_damage)


def _cache_key(
    path: Path, source_sha256: str, spec: TableSpec, fitted: tuple[Features | None, Target] | None = None
) -> str:
    """Return a digest of all that decides the content of the entry; the suffix decides how the source is read."""
    from onecycle import __version__

    suffix = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in COMPRESSIONS][-1:]
    parts = [FORMAT, __version__, suffix, source_sha256, asdict(spec)]
    if fitted is not None:
        parts += [None if part is None else part.to_dict() for part in fitted]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:KEY_LENGTH]


class Conversion:
    """Converts a source in three passes, with no more than a few chunks of it in memory.

    Statistics are those of the training rows. Raises SettingError if `spec` names a column that does not exist, or
    needs the whole table.
    """

    def __init__(
        self,
        source: SourceFile,
        spec: TableSpec,
        progress: ConversionProgress,
        fitted: tuple[Features | None, Target] | None = None,
    ) -> None:
        shape = source.shape
        self._source, self._progress, self._fitted = source, progress, fitted
        if fitted is not None and (fitted[0] is None) != shape.raw_inputs:
            raise SettingError("preprocessing: one of the two is a table with columns, the other images or arrays")
        self._split = RowwiseSplit(spec, shape.names)
        self.spec = replace(  # plain values in one order, for the cache key and JSON
            spec,
            target=["y"] if shape.raw_inputs else spec.targets,
            kinds=dict(spec.kinds),
            drop=sorted({*spec.dropped}),
            valid=self._split.fraction,
            seed=self._split.seed,
        )
        self._targets = self.spec.targets
        check_task(spec.task, self._targets)
        if shape.raw_inputs:
            for option, value in (("kinds", spec.kinds), ("drop", spec.dropped)):
                if value:
                    raise SettingError(
                        f"{option} is for the columns of a table; these are images or arrays, without columns"
                    )
        self._excluded = self.spec.non_features(shape.names)
        if not shape.raw_inputs:  # finds unknown names before the passes do
            pa, _ = import_pyarrow()
            columns = [(name, pa.null()) for name in shape.names if name not in self._excluded]
            TableProfiler(pa.schema(columns), self.spec)
        self._counts = np.zeros(len(SETS), np.int64)
        self._sample: RowChunk | None = None  # a chunk of no rows, for dtypes and shapes

    def run(self, folder: Path, source_sha256: str, make_room: Callable[[int], None]) -> Manifest:
        """Write the row files to `folder` and return their manifest; `make_room` is called before with their size.

        Raises what reading, profiling, fitting and writing raise.
        """
        target, columns = self._profile()
        if self._fitted is not None:
            (features, target), columns = self._fitted, list[ColumnProfile]()
        else:
            features = Features.fit_stream(self._training_rows(), columns, self._other_rows()) if columns else None
        assert self._sample is not None  # a table without rows has raised
        x, y = self._inputs(features, self._sample, 0), target.transform(self._sample.table)
        make_room(int(self._counts.sum()) * sum(rows.dtype.itemsize * prod(rows.shape[1:]) for rows in (x, y)))
        with ExitStack() as stack:
            writers = {
                f"{name}_{part}": stack.enter_context(RowWriter(folder / row_file(name, part), rows))
                for name, count in zip(SETS, self._counts, strict=True)
                for part, rows in (("x", x), ("y", y))
                if count
            }
            self._write(writers, features, target)
            files = {part: writer.finish() for part, writer in writers.items()}
        return Manifest(
            source=str(self._source.path.resolve()),
            source_sha256=source_sha256,
            spec=self.spec,
            files=files,
            target=target.to_dict(),
            features=None if features is None else features.to_dict(),
            columns=columns,
        )

    def _profile(self) -> tuple[Target, list[ColumnProfile]]:
        """Return the target and the columns (none for unchanged inputs), and count the rows of each set."""
        profiler: TableProfiler | None = None
        stats_of_all_rows: list[TargetStats] = []

        def training_rows() -> Iterator[Any]:
            nonlocal profiler, stats_of_all_rows
            for _, chunk, sets in self._chunks("pass 1 of 3"):
                if self._sample is None:
                    self._sample = RowChunk(chunk.table.slice(0, 0), None if chunk.x is None else chunk.x[:0])
                    stats_of_all_rows = collect_target_stats(
                        chunk.table.schema, self._targets, self.spec.task, self.spec.labels_as_written
                    )
                self._counts += np.bincount(sets, minlength=len(SETS))
                update_all(stats_of_all_rows, chunk.table)
                table = self._select_training(chunk, sets)
                if chunk.x is None:
                    profiler = profiler or TableProfiler(table.schema, self.spec)
                    profiler.add(table)
                yield table
            with naming_lines(self._source.path):  # rows are counted as in the file
                for stats in stats_of_all_rows:
                    stats.check_present()
            self._split.check_not_empty(self._counts.tolist())

        target = Target.fit_stream(training_rows(), self._targets, self.spec.task, self.spec.labels_as_written)
        return target, profiler.features() if profiler else []

    def _training_rows(self) -> Iterator[Any]:
        for _, chunk, sets in self._chunks("pass 2 of 3"):
            yield self._select_training(chunk, sets)

    def _other_rows(self) -> Iterator[Any]:
        for _, chunk, sets in self._chunks("pass 2 of 3, the rows that validate"):
            yield chunk.table.filter(import_pyarrow()[0].array(sets != 0))

    def _select_training(self, chunk: RowChunk, sets: SetCodes) -> Any:
        """Return the training rows of a chunk as a Table without the excluded columns."""
        table = chunk.table.drop_columns(self._excluded) if self._excluded else chunk.table
        return table.filter(import_pyarrow()[0].array(sets == 0))

    def _chunks(self, activity: str) -> Iterator[tuple[int, RowChunk, SetCodes]]:
        """Yield the number of each chunk's first row, the chunk, and the sets of its rows."""
        activity, total = f"converting {self._source.path.name}, {activity}", int(self._counts.sum()) or None
        first_row = 0
        for chunk in self._source.chunks():
            yield first_row, chunk, self._split.assign(chunk.table, first_row)
            first_row += chunk.table.num_rows
            self._progress.update(activity, first_row, total)

    def _write(self, writers: dict[str, RowWriter], features: Features | None, target: Target) -> None:
        """Write all rows to the files of their sets."""
        for first_row, chunk, sets in self._chunks("pass 3 of 3"):
            x, y = self._inputs(features, chunk, first_row), target.transform(chunk.table, first_row=first_row)
            for code, name in enumerate(SETS):
                if (rows := sets == code).any():
                    writers[f"{name}_x"].write(x[rows])
                    writers[f"{name}_y"].write(y[rows])

    @staticmethod
    def _inputs(features: Features | None, chunk: RowChunk, first_row: int) -> Array:
        if features is not None:
            return features.transform(chunk.table, first_row)
        assert chunk.x is not None  # else there would be columns
        return chunk.x
