"""Features: the preprocessing of a table, fitted on its training rows, as data."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from onecycle.errors import DataError
from onecycle.tables.categories import CategoryEncoder, UnseenValues, ValueCounts
from onecycle.tables.dates import DateEncoder, DateStats
from onecycle.tables.json_reader import JsonReader, damaged
from onecycle.tables.numbers import NumberEncoder, NumberStats
from onecycle.tables.profile import ColumnProfile
from onecycle.tables.spec import column_hint
from onecycle.tables.values import AS_WRITTEN, USUAL_TEXTS, Array, column_slices, in_parallel, update_all

Encoder: TypeAlias = NumberEncoder | DateEncoder | CategoryEncoder
_ENCODERS: dict[str, type[Encoder]] = {"number": NumberEncoder, "date": DateEncoder, "category": CategoryEncoder}
_FORMAT = 1
_BLOCK, _TILE = 262_144, 4_096  # rows


class Features:
    """Makes one float32 matrix of a table: numbers, flags of missing values, parts of dates, codes of categories.

    `Features.fit` takes its statistics from training rows only; `transform` applies them to any rows that have the
    columns `inputs`, in any order and among others.

    Attributes:
        inputs: Names of the table's columns that are used.
        names: Names of the matrix' columns.
        numbers: How many of the matrix' columns are numbers; the rest, at the end, are codes of categories.
        sizes: Number of codes of each category.
        text_columns: Categories that were text. A file without types, such as CSV, must be read with these as text
            ("01" is not 1).
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self._encoders = list(encoders)
        numbers = [(encoder, encoder.name) for encoder in encoders if isinstance(encoder, NumberEncoder)]
        dates = [encoder for encoder in encoders if isinstance(encoder, DateEncoder)]
        categories = [encoder for encoder in encoders if isinstance(encoder, CategoryEncoder)]
        flagged = [encoder for encoder in encoders if not isinstance(encoder, CategoryEncoder) and encoder.flag]
        outputs: list[tuple[Encoder, str]] = [
            *numbers,
            *((encoder, f"{encoder.name} is missing") for encoder in flagged),
            *((encoder, f"{encoder.name} {part}") for encoder in dates for part in encoder.parts),
            *((encoder, encoder.name) for encoder in categories),
        ]
        self.inputs = [encoder.name for encoder in encoders]
        self.text_columns = [encoder.name for encoder in categories if encoder.form == "text"]
        self.names = [name for _, name in outputs]
        self.sizes = [encoder.slots for encoder in categories]
        self.numbers = len(outputs) - len(self.sizes)
        self._outputs_of: dict[str, list[int]] = {encoder.name: [] for encoder in encoders}
        for i, (encoder, _) in enumerate(outputs):
            self._outputs_of[encoder.name].append(i)
        if not outputs:
            raise DataError("no column of the training rows has two different values; there is nothing to learn from")

    @classmethod
    def fit(cls, table: Any, columns: Sequence[ColumnProfile], rest: Any = None) -> "Features":
        """Return the preprocessing of `columns` with the statistics of the training rows.

        Args:
            table: The training rows, a pyarrow Table.
            columns: What `profile_columns` returned for the training rows.
            rest: The other rows, if there are any. They only decide whether a few texts that are not dates in a column
                of dates count as missing there, as they do if training rows have some.

        Raises:
            DataError: For a table without rows or without one of the columns, and for a cell that its column's kind
                does not allow.
        """
        return cls.fit_stream([table], columns, () if rest is None else [rest])

    @classmethod
    def fit_stream(
        cls, batches: Iterable[Any], columns: Sequence[ColumnProfile], rest: Iterable[Any] = ()
    ) -> "Features":
        """Like `fit`, of rows that come as RecordBatches or Tables, one at a time; the same to rounding.

        The `rest` is iterated over only if a column needs it.
        """
        used = [column for column in columns if column.kind != "dropped"]
        stats = [_stats_of(column) for column in used]
        names, rows = [column.name for column in used], 0
        for batch in batches:
            check_columns(batch, names)
            rows += batch.num_rows
            update_all(stats, batch)
        if not rows:
            raise DataError("the table has no rows to train on; expected at least one")
        unparsed = [column.rest for column in stats if isinstance(column, DateStats) and column.rest is not None]
        if unparsed:
            for batch in rest:
                update_all(unparsed, batch)
        return cls([column.finish() for column in stats])

    def transform(self, table: Any, first_row: int = 0, unseen: UnseenValues | None = None) -> Array:
        """Return the float32 matrix (n, width) of a table: no NaN, no infinity, codes as whole numbers.

        Args:
            table: A pyarrow Table or RecordBatch of n rows.
            first_row: Number of the table's first row in error messages.
            unseen: Counts the values of categories that training rows did not have.

        Raises:
            DataError: For a missing column, and for a cell that its column's kind does not allow.
        """
        check_columns(table, self.inputs)
        matrix = np.empty((table.num_rows, len(self.names)), np.float32)
        by_column = np.empty((len(self.names), min(table.num_rows, _BLOCK)), np.float32)
        for start in range(0, table.num_rows, _BLOCK):
            block = table.slice(start, _BLOCK)
            self._write(block, first_row + start, by_column[:, : block.num_rows], unseen)
            _transpose(by_column, matrix[start : start + block.num_rows])
        return matrix

    def _write(self, block: Any, first_row: int, out: Array, unseen: UnseenValues | None) -> None:
        """Write the matrix' columns of a block to `out` (width, n)."""

        def write(encoder: Encoder) -> None:
            done = 0
            for chunk in column_slices(block, encoder.name, encoder.chunk_rows):
                rows = slice(done, done + len(chunk))
                parts = [out[i, rows] for i in self._outputs_of[encoder.name]]
                if isinstance(encoder, CategoryEncoder):
                    encoder.write(chunk, first_row + done, parts, unseen)
                else:
                    encoder.write(chunk, first_row + done, parts)
                done += len(chunk)

        in_parallel(write, self._encoders)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON; `from_dict` returns Features that transform bit for bit alike."""
        return {"format": _FORMAT, "columns": [encoder.to_dict() for encoder in self._encoders]}

    @classmethod
    def from_dict(cls, written: Any) -> "Features":
        """Return the Features that `to_dict` described. Raises DataError for anything else."""
        description = JsonReader(written, "preprocessing")
        description.check_format(_FORMAT)
        encoders: list[Encoder] = []
        for i, value in enumerate(description.items("columns")):
            entry = JsonReader(value, f"preprocessing.columns[{i}]")
            encoders.append(_ENCODERS[entry.choice("kind", tuple(_ENCODERS))].from_dict(entry))
        names = [encoder.name for encoder in encoders]
        if len(set(names)) < len(names):
            raise damaged("preprocessing.columns", names, "each column once")
        return cls(encoders)


def check_columns(table: Any, names: Sequence[str]) -> None:
    """Raise DataError if one of the columns is not in the table, or is in it twice."""
    present = Counter(table.schema.names)
    for name in names:
        if (times := present[name]) == 1:
            continue
        if times:
            raise DataError(f'{times} columns are called "{name}"; expected one: rename or drop the others')
        hint = column_hint(name, list(present))
        raise DataError(f'the table has no column "{name}", which the model was trained with{hint}')


def _transpose(by_column: Array, out: Array) -> None:
    """Copy (width, n) to (n, width), in tiles that fit into a processor's cache: writing with large strides is slow."""

    def copy_tile(start: int) -> None:
        tile = slice(start, min(start + _TILE, len(out)))
        out[tile] = by_column[:, tile].T

    in_parallel(copy_tile, range(0, len(out), _TILE))


def _stats_of(column: ColumnProfile) -> NumberStats | DateStats | ValueCounts:
    """Return empty statistics for a column."""
    if column.kind == "number":
        return NumberStats(column.name)
    if column.kind == "date":
        return DateStats(column.name, column.unparsed)
    return ValueCounts(column.name, AS_WRITTEN if column.as_written else USUAL_TEXTS)
