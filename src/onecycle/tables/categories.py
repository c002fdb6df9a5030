"""Columns of categories: how often each value occurs, and the encoder that turns values into codes."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from onecycle.errors import DataError, did_you_mean
from onecycle.tables.json_reader import JsonReader
from onecycle.tables.values import (
    AS_WRITTEN,
    CSV_MISSING_MARKERS,
    NUMBER,
    Array,
    TextRule,
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
_BOOLEANS = ("true", "True", "TRUE", "false", "False", "FALSE")  # which a CSV file is read with
_MOST_UNSEEN = 10_000  # different values that are counted exactly
_SHOWN = 40  # characters of a value in a message


class ValueCounts:
    """Counts the values of a column that comes in chunks.

    Beyond MAX_COUNTED distinct values the rarer ones are forgotten. `overflow` is then how many there were, and in how
    many rows. `rule` says which texts are the same, or missing.
    """

    chunk_rows = 1_048_576

    def __init__(self, name: str, rule: TextRule = AS_WRITTEN) -> None:
        self.name, self.rule, self.form = name, rule, "text"
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
            texts = value_texts(values, self.rule)
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
        self.merge_booleans()
        values = self.counts()[0].slice(0, MAX_CATEGORIES).to_pylist()
        return CategoryEncoder(self.name, self.form, tuple(values), self.missing > 0, self.rule)

    def merge_booleans(self) -> None:
        """Take texts for booleans if all are: "True" and "true" are the same then, as in a CSV file."""
        pa, pc = import_pyarrow()
        table = self._merge()
        if self.form != "text" or not self.rule.trimmed or not 0 < len(table) <= len(_BOOLEANS):
            return
        if pc.all(pc.is_in(table["text"], value_set=pa.array(_BOOLEANS, pa.large_string()))).as_py():
            self.form = "bool"
            self._chunk_counts, self._total = [table.set_column(0, "text", pc.utf8_lower(table["text"]))], None

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
        rule: Which texts are the same, or missing.
    """

    chunk_rows: ClassVar = 262_144
    name: str
    form: str
    values: tuple[str, ...]
    flag: bool
    rule: TextRule = AS_WRITTEN

    @property
    def slots(self) -> int:
        """Number of codes."""
        return 1 + len(self.values) + self.flag

    def write(self, column: Any, first_row: int, out: Sequence[Array], unseen: "UnseenValues | None" = None) -> None:
        """Write the codes of a chunk of the column to out[0], of any type of numbers, and count values without one.

        Raises DataError for values that cannot be categories.
        """
        _, pc = import_pyarrow()
        _check_values(column, self.name)
        missing, done = self.slots - 1 if self.flag else 0, 0
        for values, places in dictionary_codes(column):
            texts = value_texts(values, self.rule)
            if category_form(values.type) != self.form:
                texts = self._in_training_form(texts)
            codes = pc.add(pc.fill_null(pc.index_in(texts, value_set=self._known, skip_nulls=True), -1), 1)
            if unseen is not None:
                unseen.add(self, texts, pc.equal(codes, 0), places)
            codes = pc.if_else(texts.is_null(), missing, codes).to_numpy(zero_copy_only=False)
            codes = np.append(codes, missing).astype(out[0].dtype)  # the last is for null, whose place is -1
            np.take(codes, places, out=out[0][done : done + len(places)], mode="wrap")
            done += len(places)

    def to_dict(self) -> dict[str, Any]:
        """Return the encoder as plain JSON."""
        rule = {"trimmed": self.rule.trimmed, "markers": list(self.rule.markers)}
        return {"kind": "category", **asdict(self), "values": list(self.values), "rule": rule}

    @classmethod
    def from_dict(cls, entry: JsonReader) -> "CategoryEncoder":
        """Return the encoder that `to_dict` wrote. Raises DataError for anything else."""
        values = tuple(entry.texts("values"))
        return cls(
            entry.text("name"), entry.choice("form", _FORMS), values, entry.flag("flag"), read_rule(entry, values)
        )

    @cached_property
    def _known(self) -> Any:
        pa, _ = import_pyarrow()
        return pa.array(self.values, pa.large_string())

    @cached_property
    def _by_canonical_text(self) -> dict[str, str]:
        return {_canonical_text(value): value for value in reversed(self.values)}  # the most frequent one wins

    def hint(self, text: str) -> str:
        """Return the end of a message about a value without a code: the known value that is meant, or those known."""
        if len(text) <= _SHOWN:
            if (same := self._by_canonical_text.get(_canonical_text(text))) is not None:
                return f'; did you mean "{same}"?'
            if near := did_you_mean(text, [value for value in self.values if len(value) <= _SHOWN]):
                return near
        known = ", ".join(repr(value[:_SHOWN]) for value in self.values[:3])
        return f"; it knows {known}" + (", …" if len(self.values) > 3 else "")

    def _in_training_form(self, texts: Any) -> Any:
        """Return the texts of values of another form as those of the training values that stand for the same."""
        pa, _ = import_pyarrow()
        known = set(self.values)
        matched = [
            text if text is None or text in known else self._by_canonical_text.get(_canonical_text(text), text)
            for text in texts.to_pylist()
        ]
        return pa.array(matched, pa.large_string())


class UnseenValues:
    """Counts the values that have no code, in the rows of several chunks: of each column how many, and which most."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self._cells: dict[str, list[int]] = {}  # without a code, and all
        self._encoders: dict[str, CategoryEncoder] = {}

    def add(self, encoder: CategoryEncoder, texts: Any, is_unseen: Any, places: Array) -> None:
        """Count distinct texts, of which some are unseen (null: missing), and the place of each row's among them."""
        cells = self._cells.setdefault(encoder.name, [0, 0])
        cells[1] += len(places)
        mask = is_unseen.to_numpy(zero_copy_only=False) & texts.is_valid().to_numpy(zero_copy_only=False)
        if not mask.any():
            return
        times = np.bincount(places + 1, minlength=len(mask) + 1)[1:][mask]  # the first are null
        counts = self._counts.setdefault(encoder.name, Counter())
        for text, count in zip(texts.filter(import_pyarrow()[0].array(mask)).to_pylist(), times.tolist(), strict=True):
            if count:  # a dictionary may have values that no row has
                counts[text] += count
        cells[0] += int(times.sum())
        self._encoders[encoder.name] = encoder
        if len(counts) > _MOST_UNSEEN:
            self._counts[encoder.name] = Counter(dict(counts.most_common(_MOST_UNSEEN // 2)))

    def messages(self) -> list[str]:
        """Return a line for each column that has some: how many, the most frequent, and the known one that is meant."""
        lines: list[str] = []
        for name, encoder in self._encoders.items():
            (unseen, cells), counts = self._cells[name], self._counts[name]
            if not unseen:
                continue
            text, times = min(counts.items(), key=lambda item: (-item[1], item[0]))
            lines.append(
                f'column "{name}": {unseen:,} of {cells:,} cells hold what the model does not know from training, most '
                f"often {text[:_SHOWN]!r} ({times:,}){encoder.hint(text)}"
            )
        return sorted(lines)


def read_rule(entry: JsonReader, values: Sequence[Any]) -> TextRule:
    """Return the rule that is written in a description of categories with these values.

    Descriptions by 0.1.0 have none. Their CSV files had no markers among the values, and other tables whatever is.
    """
    if "rule" not in entry:
        return TextRule(False, tuple(marker for marker in CSV_MISSING_MARKERS if marker not in values))
    rule = entry.child("rule")
    return TextRule(rule.flag("trimmed"), tuple(rule.texts("markers")))


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
