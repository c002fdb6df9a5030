"""A table larger than memory, made into files of inputs and targets that a loader reads."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from onecycle.errors import SettingError, did_you_mean
from onecycle.tables.cache.arrays import Piece
from onecycle.tables.cache.manifest import Manifest, RowFile, column_dicts
from onecycle.tables.cache.progress import Progress
from onecycle.tables.cache.rowwise_split import SIDES, Places, RowwiseSplit
from onecycle.tables.cache.source import Source
from onecycle.tables.features import Features
from onecycle.tables.profile import ColumnProfile, TableProfiler
from onecycle.tables.read import lines_named
from onecycle.tables.spec import TableSpec, excluded_feature
from onecycle.tables.target import Target
from onecycle.tables.target_stats import TargetStats, collect_target_stats
from onecycle.tables.values import Array, arrow, update_all


@dataclass(frozen=True)
class Settings:
    """How a table is prepared: plain values, which JSON keeps as they are."""

    target: list[str]
    task: str | None
    kinds: dict[str, str]
    drop: list[str]
    split: Any
    valid: float
    seed: int


class Conversion:
    """Makes the files. Each step is a pass over the source, of which no more than a few pieces are in memory.

    Statistics are of the training rows only. Raises SettingError for what needs the whole table, or a column that is
    not there.
    """

    def __init__(self, source: Source, settings: Settings, progress: Progress) -> None:
        names = source.shape.names
        self._source, self._progress = source, progress
        self._sides = RowwiseSplit(settings.split, settings.valid, settings.seed, names)
        self.settings = replace(settings, valid=self._sides.share, seed=self._sides.seed)  # plain numbers
        for name in settings.drop:
            if name not in names:
                raise SettingError(f'drop names "{name}", but there is no such column{did_you_mean(name, names)}')
        self._spec = TableSpec(settings.target, kinds=settings.kinds)  # pyright: ignore[reportArgumentType] -- TableProfiler checks the kinds
        used_by_split = excluded_feature(settings.split)
        self._left_out = [*dict.fromkeys([*settings.drop, *([used_by_split] if used_by_split else [])])]
        if not source.shape.as_is:  # finds names that are not there before the passes do
            pa, _ = arrow()
            columns = [(name, pa.null()) for name in names if name not in self._left_out]
            TableProfiler(pa.schema(columns), self._spec)
        self._counts = np.zeros(len(SIDES), np.int64)
        self._first: Piece | None = None  # without its rows

    def run(self, folder: Path, source_sha256: str, make_room: Callable[[int], None]) -> Manifest:
        """Write the files to `folder`; `make_room` is called before, with their size. Gives what to write beside them.

        Raises what reading, surveying, fitting and writing raise.
        """
        target, columns = self._survey()
        features = Features.fit_stream(self._training_rows(), columns, self._other_rows()) if columns else None
        assert self._first is not None  # a table without rows has raised
        x, y = self._inputs(features, self._first, 0), target.transform(self._first.table)
        make_room(int(self._counts.sum()) * (_row_bytes(x) + _row_bytes(y)))
        with ExitStack() as stack:
            files = {
                f"{side}_{part}": stack.enter_context(RowWriter(folder / f"{side}_{part}.bin", rows))
                for side, count in zip(SIDES, self._counts, strict=True)
                for part, rows in (("x", x), ("y", y))
                if count
            }
            class_counts = self._write(files, features, target)
            written = {part: file.finish() for part, file in files.items()}
        return Manifest(
            source=str(self._source.path.resolve()),
            source_sha256=source_sha256,
            settings=vars(self.settings),
            files=written,
            target=target.to_dict(),
            features=None if features is None else features.to_dict(),
            columns=column_dicts(columns),
            class_counts=class_counts,
        )

    def _survey(self) -> tuple[Target, list[ColumnProfile]]:
        """What is predicted, and what the columns are; none for inputs that are taken as they are."""
        settings, survey, given = self.settings, list[TableProfiler](), list[TargetStats]()

        def surveyed() -> Iterator[Any]:
            for _, piece, places in self._parts("pass 1 of 3"):
                if self._first is None:
                    self._first = Piece(piece.table.slice(0, 0), None if piece.x is None else piece.x[:0])
                self._counts += np.bincount(places, minlength=len(SIDES))
                given[:] = given or collect_target_stats(piece.table.schema, settings.target, settings.task)
                update_all(given, piece.table)
                table = self._of_training(piece, places)
                if piece.x is None:
                    survey[:] = survey or [TableProfiler(table.schema, self._spec)]
                    survey[0].add(table)
                yield table
            with lines_named(self._source.path):
                for column in given:  # of all rows, so that they are numbered as in the file
                    column.check_present()
            self._sides.check(self._counts.tolist())

        target = Target.fit_stream(surveyed(), settings.target, settings.task)
        return target, survey[0].features() if survey else []

    def _training_rows(self) -> Iterator[Any]:
        for _, piece, places in self._parts("pass 2 of 3"):
            yield self._of_training(piece, places)

    def _other_rows(self) -> Iterator[Any]:
        for _, piece, places in self._parts("pass 2 of 3, the rows that validate"):
            yield piece.table.filter(arrow()[0].array(places != 0))

    def _of_training(self, piece: Piece, places: Places) -> Any:
        """The training rows of a piece, without the columns that are left out."""
        table = piece.table.drop_columns(self._left_out) if self._left_out else piece.table
        return table.filter(arrow()[0].array(places == 0))

    def _parts(self, what: str) -> Iterator[tuple[int, Piece, Places]]:
        """The number of the first row of each piece, the piece, and the sides of its rows."""
        name = self._source.path.name
        for first_row, piece in self._source.pieces(f"preparing {name}, {what}", self._progress):
            yield first_row, piece, self._sides.of(piece.table, first_row)

    def _write(self, files: "dict[str, RowWriter]", features: Features | None, target: Target) -> list[int] | None:
        """Write all rows, each to its side. Gives how many training rows each class or label has."""
        counts = None if target.classes is None else np.zeros(len(target.classes), np.int64)
        for first_row, piece, places in self._parts("pass 3 of 3"):
            x, y = self._inputs(features, piece, first_row), target.transform(piece.table, first_row=first_row)
            for place, side in enumerate(SIDES):
                if (rows := places == place).any():
                    files[f"{side}_x"].write(x[rows])
                    files[f"{side}_y"].write(y[rows])
            if counts is not None:
                of_training = y[places == 0]
                counts += (
                    np.bincount(of_training, minlength=len(counts)) if y.ndim == 1 else of_training.sum(0, np.int64)
                )
        return None if counts is None else counts.tolist()

    @staticmethod
    def _inputs(features: Features | None, piece: Piece, first_row: int) -> Array:
        if features is not None:
            return features.transform(piece.table, first_row)
        assert piece.x is not None  # else there would be columns
        return piece.x


class RowWriter:
    """Writes rows like those of `rows` to a new file, and sees to it that they reach the disk."""

    def __init__(self, path: Path, rows: Array) -> None:
        self._path, self._dtype, self._shape = path, rows.dtype.newbyteorder("<"), rows.shape[1:]
        self._file, self._count, self._sha256 = path.open("xb"), 0, sha256()

    def write(self, rows: Array) -> None:
        """Append rows."""
        content = np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data
        self._sha256.update(content)
        self._file.write(content)
        self._count += len(rows)

    def finish(self) -> RowFile:
        """Write what is still in memory, and say what the file holds."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        shape, time = (self._count, *self._shape), self._path.stat().st_mtime_ns
        return RowFile(self._path.name, self._dtype.name, shape, self._sha256.hexdigest(), time)

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _row_bytes(rows: Array) -> int:
    return rows.dtype.itemsize * prod(rows.shape[1:])
