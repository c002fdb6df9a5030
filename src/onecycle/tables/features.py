"""Features: the preprocessing of a table, fitted on its training rows, as data."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from onecycle.errors import DataError, did_you_mean
from onecycle.tables.categories import FittedCategory, ValueCounts
from onecycle.tables.dates import DateStats, FittedDate
from onecycle.tables.encoder_json import Encoder, JsonReader, damaged, encoder_from_dict, encoder_to_dict
from onecycle.tables.numbers import FittedNumber, NumberStats
from onecycle.tables.profile import Column
from onecycle.tables.values import Array, column_slices, in_parallel, update_all

_FORMAT = 1
_BLOCK, _TILE = 262_144, 4_096  # rows


class Features:
    """Makes one float32 matrix of a table: numbers, flags of missing values, parts of dates, codes of categories.

    `Features.fit` takes its statistics from training rows only; `transform` applies them to any rows that have the
    columns `inputs`, in any order and among others. `numbers` is how many of the matrix' columns are numbers (all but
    the codes), `sizes` the number of codes of each category, `names` what the matrix' columns are called. `as_written`
    are the categories that were text: a CSV file is to be read with them as they are written ("01" is not 1).
    """

    def __init__(self, fitted: Sequence[Encoder]) -> None:
        self._fitted = list(fitted)
        numbers = [(column, column.name) for column in fitted if isinstance(column, FittedNumber)]
        flags = [
            (column, f"{column.name} is missing")
            for column in fitted
            if not isinstance(column, FittedCategory) and column.flag
        ]
        parts = [
            (column, f"{column.name} {part}")
            for column in fitted
            if isinstance(column, FittedDate)
            for part in column.parts
        ]
        categories = [(column, column.name) for column in fitted if isinstance(column, FittedCategory)]
        made: list[tuple[Encoder, str]] = [*numbers, *flags, *parts, *categories]
        self.inputs = [column.name for column in fitted]
        self.as_written = [column.name for column, _ in categories if column.form == "text"]
        self.names = [name for _, name in made]
        self.sizes = [column.slots for column, _ in categories]
        self.numbers = len(made) - len(self.sizes)
        self._places: dict[str, list[int]] = {column.name: [] for column in fitted}
        for place, (column, _) in enumerate(made):
            self._places[column.name].append(place)
        if not made:
            raise DataError("no column of the training rows has two different values; there is nothing to learn from")

    @classmethod
    def fit(cls, table: Any, columns: Sequence[Column], rest: Any = None) -> "Features":
        """The preprocessing of `columns` (what `survey` found), with the statistics of `table`, the training rows.

        Of the `rest` of the rows nothing is taken but whether text that is taken for dates is none in a few of them: it
        counts as missing then, as where that is so in training rows.

        Raises DataError for a table without rows or without one of the columns, and for a cell that its column's kind
        does not allow.
        """
        return cls.fit_stream([table], columns, () if rest is None else [rest])

    @classmethod
    def fit_stream(
        cls,
        batches: Iterable[Any] | Callable[[], Iterable[Any]],
        columns: Sequence[Column],
        rest: Iterable[Any] | Callable[[], Iterable[Any]] = (),
    ) -> "Features":
        """As `fit`, of training rows that come as RecordBatches or Tables, one at a time; the same to rounding."""
        used = [column for column in columns if column.kind != "dropped"]
        stats = [_stats_of(column) for column in used]
        names, rows = [column.name for column in used], 0
        for batch in batches() if callable(batches) else batches:
            check_columns(batch, names)
            rows += batch.num_rows
            update_all(stats, batch)
        if not rows:
            raise DataError("the table has no rows to train on; expected at least one")
        slips = [column.slips for column in stats if isinstance(column, DateStats) and column.slips is not None]
        if slips:
            for batch in rest() if callable(rest) else rest:
                update_all(slips, batch)
        return cls([column.finish() for column in stats])

    def transform(self, table: Any, first_row: int = 0) -> Array:
        """The float32 matrix (n, width) of a Table or RecordBatch: no NaN, no infinity, codes as whole numbers.

        `first_row` is the number of the table's first row in messages. Raises DataError for a column that is not there
        and for a cell that its column's kind does not allow.
        """
        check_columns(table, self.inputs)
        matrix = np.empty((table.num_rows, len(self.names)), np.float32)
        by_column = np.empty((len(self.names), min(table.num_rows, _BLOCK)), np.float32)
        for start in range(0, table.num_rows, _BLOCK):
            block = table.slice(start, _BLOCK)
            self._write(block, first_row + start, by_column[:, : block.num_rows])
            _turn(by_column, matrix[start : start + block.num_rows])
        return matrix

    def _write(self, block: Any, first_row: int, out: Array) -> None:
        """Write the matrix' columns of a block to `out` (width, n)."""

        def write(column: Encoder) -> None:
            done = 0
            for piece in column_slices(block, column.name, column.piece):
                rows = slice(done, done + len(piece))
                column.write(piece, first_row + done, [out[place, rows] for place in self._places[column.name]])
                done += len(piece)

        in_parallel(write, self._fitted)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON; `from_dict` gives Features that transform bit for bit alike."""
        return {"format": _FORMAT, "columns": [encoder_to_dict(column) for column in self._fitted]}

    @classmethod
    def from_dict(cls, written: Any) -> "Features":
        """The Features that `to_dict` described. Raises DataError for what it did not write."""
        entries = JsonReader(written, "preprocessing")
        entries.format(_FORMAT)
        columns = [
            encoder_from_dict(found, f"preprocessing.columns[{at}]")
            for at, found in enumerate(entries.items("columns"))
        ]
        names = [column.name for column in columns]
        if len(set(names)) < len(names):
            raise damaged("preprocessing.columns", names, "each column once")
        return cls(columns)


def check_columns(table: Any, names: Sequence[str]) -> None:
    """Raises DataError where one of the columns is not in the table, or is in it twice."""
    found = Counter(table.schema.names)
    for name in names:
        if (times := found[name]) == 1:
            continue
        if times:
            raise DataError(f'{times} columns are called "{name}"; expected one: rename or drop the others')
        near = did_you_mean(name, found) or f"; it has {', '.join(list(found)[:10]) or 'none'}"
        raise DataError(f'the table has no column "{name}", which the model was trained with{near}')


def _turn(by_column: Array, out: Array) -> None:
    """Copy (width, n) to (n, width), in tiles that fit a processor's cache: numbers far apart are slow to write."""

    def turn(start: int) -> None:
        tile = slice(start, min(start + _TILE, len(out)))
        out[tile] = by_column[:, tile].T

    in_parallel(turn, range(0, len(out), _TILE))


def _stats_of(column: Column) -> NumberStats | DateStats | ValueCounts:
    if column.kind == "number":
        return NumberStats(column.name)
    if column.kind == "date":
        return DateStats(column.name, column.others)
    return ValueCounts(column.name)
