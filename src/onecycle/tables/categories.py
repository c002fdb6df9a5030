"""A column of categories: how often each occurs, and what makes codes of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from onecycle.errors import DataError
from onecycle.tables.values import (
    NUMBER,
    Array,
    category_form,
    dictionary_codes,
    import_pyarrow,
    number_text,
    value_counts,
    value_kind,
    value_texts,
)

MOST = 1_000  # categories of a column that get a slot of their own
HELD = 1_000_000  # distinct values that are counted


class ValueCounts:
    """How often each value occurs in a column that comes piece by piece.

    Beyond HELD distinct values the rarer ones are forgotten; `overflow` is how many there were then, in how many rows.
    """

    piece = 1_048_576

    def __init__(self, name: str) -> None:
        self.name, self.form = name, "text"
        self.rows, self.missing = 0, 0
        self.overflow: tuple[int, int] | None = None
        self._total: Any = None  # a table of texts and counts
        self._pieces: list[Any] = []  # such tables, to be added to it
        self._pending = 0  # rows in them

    def add(self, column: Any) -> None:
        """Take in rows of a column. Raises DataError for values that cannot be categories."""
        pa, _ = import_pyarrow()
        _check(column, self.name)
        self.form = category_form(column.type)
        for values, counts in value_counts(column):
            texts = value_texts(values)
            there = texts.is_valid().to_numpy(zero_copy_only=False) & (counts > 0)  # dictionaries have unused values
            self.missing += int(counts[~there].sum())
            self._pieces.append(pa.table({"text": texts, "count": counts}).filter(pa.array(there)))
            self._pending += len(texts)
        self.rows += len(column)
        if self._pending > max(100_000, 0 if self._total is None else 2 * len(self._total)):
            self._add_up()

    def counts(self) -> tuple[Any, Array]:
        """The values' texts and how often each occurs: the most frequent first, equally frequent ones by text."""
        table = self._add_up().sort_by([("count", "descending"), ("text", "ascending")])
        return table["text"], table["count"].to_numpy()

    def finish(self) -> "FittedCategory":
        """The column's preprocessing: the MOST frequent values get slots."""
        values = self.counts()[0].slice(0, MOST).to_pylist()
        return FittedCategory(self.name, self.form, tuple(values), flag=self.missing > 0)

    def _add_up(self) -> Any:
        """The table of all that came so far."""
        pa, _ = import_pyarrow()
        if self._total is None:
            self._total = pa.table({"text": pa.array([], pa.large_string()), "count": pa.array([], pa.int64())})
        if self._pieces:
            together = pa.concat_tables([self._total, *self._pieces])
            table = together.group_by("text", use_threads=False).aggregate([("count", "sum")])
            table = pa.table({"text": table["text"], "count": table["count_sum"]})
            if len(table) > HELD:
                self.overflow = self.overflow or (len(table), self.rows - self.missing)
                table = table.sort_by([("count", "descending"), ("text", "ascending")]).slice(0, HELD // 2)
            self._total, self._pieces, self._pending = table, [], 0
        return self._total


@dataclass(frozen=True)
class FittedCategory:
    """Makes codes of a column's values: 0 for one not seen in training, then `values` in turn, last the missing ones.

    `form` is what the values were in training, "text", "number" or "bool": values of another form are matched by what
    they stand for. Without `flag` nothing was missing in training, and a missing value is as one not seen.
    """

    piece: ClassVar = 262_144
    name: str
    form: str
    values: tuple[str, ...]
    flag: bool

    @property
    def slots(self) -> int:
        """How many codes there are."""
        return 1 + len(self.values) + self.flag

    def write(self, column: Any, first_row: int, out: Sequence[Array]) -> None:
        """Write the codes of a piece of the column to out[0], of any type of numbers.

        Raises DataError for values that cannot be categories.
        """
        _, pc = import_pyarrow()
        _check(column, self.name)
        missing, done = self.slots - 1 if self.flag else 0, 0
        for values, places in dictionary_codes(column):
            texts = value_texts(values)
            if category_form(values.type) != self.form:
                texts = self._in_my_form(texts)
            slots = pc.add(pc.fill_null(pc.index_in(texts, value_set=self._known, skip_nulls=True), -1), 1)
            slots = pc.if_else(texts.is_null(), missing, slots).to_numpy(zero_copy_only=False)
            slots = np.append(slots, missing).astype(out[0].dtype)  # the last is for the place of null, -1
            np.take(slots, places, out=out[0][done : done + len(places)], mode="wrap")
            done += len(places)

    @cached_property
    def _known(self) -> Any:
        pa, _ = import_pyarrow()
        return pa.array(self.values, pa.large_string())

    @cached_property
    def _by_worth(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for value in self.values:
            found.setdefault(_worth(value), value)
        return found

    def _in_my_form(self, texts: Any) -> Any:
        """The texts of values of another form as those of the training values that stand for the same."""
        pa, _ = import_pyarrow()
        known = set(self.values)
        found = [
            text if text is None or text in known else self._by_worth.get(_worth(text), text)
            for text in texts.to_pylist()
        ]
        return pa.array(found, pa.large_string())


def _worth(text: str) -> str:
    """What a value's text stands for: "1.0", "1", "01" and "True" are worth the same."""
    text = text.strip().lower()
    if text in ("true", "false"):
        return str(int(text == "true"))
    if not re.match(NUMBER, text) or len(text) > 400:
        return text
    return number_text(float(text) if re.search("[.ef]", text) else int(text)) or text


def _check(column: Any, name: str) -> None:
    if value_kind(column.type) == "other":
        raise DataError(f'column "{name}" holds {column.type}; expected text, numbers or true and false')
