"""Columns of categories: how often each value occurs, and the encoder that turns values into codes."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from onecycle.errors import DataError
from onecycle.tables.json_reader import JsonReader
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

MAX_CATEGORIES = 1_000  # categories of a column that get a code of their own
MAX_COUNTED = 1_000_000  # distinct values that are counted
_FORMS = ("text", "number", "bool")


class ValueCounts:
    """Counts the values of a column that comes in chunks.

    Beyond MAX_COUNTED distinct values the rarer ones are forgotten. `overflow` is then how many there were, and in how
    many rows.
    """

    chunk_rows = 1_048_576

    def __init__(self, name: str) -> None:
        self.name, self.form = name, "text"
        self.rows, self.missing = 0, 0
        self.overflow: tuple[int, int] | None = None
        self._total: Any = None  # a table of texts and counts
        self._chunk_counts: list[Any] = []  # such tables, to be added to it
        self._pending = 0  # rows in them

    def add(self, column: Any) -> None:
        """Add rows of the column. Raises DataError for values that cannot be categories."""
        pa, _ = import_pyarrow()
        _check_values(column, self.name)
        self.form = category_form(column.type)
        for values, counts in value_counts(column):
            texts = value_texts(values)
            occurs = texts.is_valid().to_numpy(zero_copy_only=False) & (counts > 0)  # dictionaries have unused values
            self.missing += int(counts[~occurs].sum())
            self._chunk_counts.append(pa.table({"text": texts, "count": counts}).filter(pa.array(occurs)))
            self._pending += len(texts)
        self.rows += len(column)
        if self._pending > max(100_000, 0 if self._total is None else 2 * len(self._total)):
            self._merge()

    def counts(self) -> tuple[Any, Array]:
        """Return the values' texts and how often each occurs, the most frequent first, ties sorted by text."""
        table = self._merge().sort_by([("count", "descending"), ("text", "ascending")])
        return table["text"], table["count"].to_numpy()

    def finish(self) -> "CategoryEncoder":
        """Return the encoder: the most frequent values get codes."""
        values = self.counts()[0].slice(0, MAX_CATEGORIES).to_pylist()
        return CategoryEncoder(self.name, self.form, tuple(values), flag=self.missing > 0)

    def _merge(self) -> Any:
        """Add up the chunks, and return the table of all counts."""
        pa, _ = import_pyarrow()
        if self._total is None:
            self._total = pa.table({"text": pa.array([], pa.large_string()), "count": pa.array([], pa.int64())})
        if self._chunk_counts:
            together = pa.concat_tables([self._total, *self._chunk_counts])
            table = together.group_by("text", use_threads=False).aggregate([("count", "sum")])
            table = pa.table({"text": table["text"], "count": table["count_sum"]})
            if len(table) > MAX_COUNTED:
                self.overflow = self.overflow or (len(table), self.rows - self.missing)
                table = table.sort_by([("count", "descending"), ("text", "ascending")]).slice(0, MAX_COUNTED // 2)
            self._total, self._chunk_counts, self._pending = table, [], 0
        return self._total


@dataclass(frozen=True)
class CategoryEncoder:
    """Makes codes of a column's values: 0 for one not seen in training, then `values` in turn, last the missing ones.

    Attributes:
        name: Name of the column.
        form: What the values were in training: "text", "number" or "bool". Values of another form match by what they
            stand for, such as "1.0" and 1.
        values: Texts of the values that have a code, the most frequent first.
        flag: Whether training rows had missing values; if not, a missing value counts as unseen.
    """

    chunk_rows: ClassVar = 262_144
    name: str
    form: str
    values: tuple[str, ...]
    flag: bool

    @property
    def slots(self) -> int:
        """Number of codes."""
        return 1 + len(self.values) + self.flag

    def write(self, column: Any, first_row: int, out: Sequence[Array]) -> None:
        """Write the codes of a chunk of the column to out[0], of any type of numbers.

        Raises DataError for values that cannot be categories.
        """
        _, pc = import_pyarrow()
        _check_values(column, self.name)
        missing, done = self.slots - 1 if self.flag else 0, 0
        for values, places in dictionary_codes(column):
            texts = value_texts(values)
            if category_form(values.type) != self.form:
                texts = self._in_training_form(texts)
            codes = pc.add(pc.fill_null(pc.index_in(texts, value_set=self._known, skip_nulls=True), -1), 1)
            codes = pc.if_else(texts.is_null(), missing, codes).to_numpy(zero_copy_only=False)
            codes = np.append(codes, missing).astype(out[0].dtype)  # the last is for null, whose place is -1
            np.take(codes, places, out=out[0][done : done + len(places)], mode="wrap")
            done += len(places)

    def to_dict(self) -> dict[str, Any]:
        """Return the encoder as plain JSON."""
        return {"kind": "category", **asdict(self), "values": list(self.values)}

    @classmethod
    def from_dict(cls, entry: JsonReader) -> "CategoryEncoder":
        """Return the encoder that `to_dict` wrote. Raises DataError for anything else."""
        return cls(entry.text("name"), entry.choice("form", _FORMS), tuple(entry.texts("values")), entry.flag("flag"))

    @cached_property
    def _known(self) -> Any:
        pa, _ = import_pyarrow()
        return pa.array(self.values, pa.large_string())

    @cached_property
    def _by_canonical_text(self) -> dict[str, str]:
        return {_canonical_text(value): value for value in reversed(self.values)}  # the most frequent one wins

    def _in_training_form(self, texts: Any) -> Any:
        """Return the texts of values of another form as those of the training values that stand for the same."""
        pa, _ = import_pyarrow()
        known = set(self.values)
        matched = [
            text if text is None or text in known else self._by_canonical_text.get(_canonical_text(text), text)
            for text in texts.to_pylist()
        ]
        return pa.array(matched, pa.large_string())


def _canonical_text(text: str) -> str:
    """Return one text for all that stand for the same value: "1.0", "1", "01" and "True" are equal."""
    text = text.strip().lower()
    if text in ("true", "false"):
        return str(int(text == "true"))
    if len(text) > 400 or not re.match(NUMBER, text):
        return text
    return number_text(float(text) if re.search("[.ef]", text) else int(text)) or text


def _check_values(column: Any, name: str) -> None:
    """Raise DataError if the column's values cannot be categories."""
    if value_kind(column.type) == "other":
        raise DataError(f'column "{name}" holds {column.type}; expected text, numbers or true and false')
