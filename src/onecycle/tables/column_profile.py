"""What is known of each column while a table is surveyed, and what is concluded from it."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from onecycle.errors import pluralize
from onecycle.tables.categories import MOST, ValueCounts
from onecycle.tables.dates import ISO, as_days, iso
from onecycle.tables.numbers import PIECE
from onecycle.tables.values import NEARLY_ALL, NUMBER, Array, arrow, as_numbers, null_missing_markers, value_kind

FEW = 20  # rows: in no more, different values in each say nothing
_DENSE = 0.6  # of consecutive numbers, in what counts the rows: training rows are a part of a table's
_LOOKED_AT = 1_000  # texts that must look like dates or numbers before all are read


@dataclass(frozen=True)
class Column:
    """A column of a table: its kind ("number", "category", "date" or "dropped") and why it is taken for that."""

    name: str
    kind: str
    why: str
    missing: int  # rows without a value
    distinct: int | None  # different values; None where they were not counted, as for numbers and dates
    others: int | None = None  # of text taken for dates: rows in which it is none; they count as missing


class ColumnProfile(Protocol):
    """What is known of a column so far."""

    name: str
    piece: int  # rows to take in at a time, at most

    def add(self, column: Any) -> None:
        """Take in rows of the column."""
        ...

    def column(self, rows: int) -> Column:
        """What the column is."""
        ...


def profile_column(name: str, held: Any, kind: str | None) -> ColumnProfile:
    """The tally of a column that holds the Arrow type `held`; `kind` is what it was set to, if it was."""
    pa, _ = arrow()
    sort = value_kind(held)
    if sort in ("other", "nothing") or kind == "dropped":
        return _Unread(name, held)
    if sort == "date":
        return _Dates(name)
    if sort == "number" and kind != "category" and not pa.types.is_dictionary(held):
        return _Numbers(name, counts=pa.types.is_integer(held))
    return _Texts(name)


class _Unread:
    """A column that is not looked into."""

    piece = PIECE

    def __init__(self, name: str, held: Any) -> None:
        self.name, self._held, self._missing = name, held, 0

    def add(self, column: Any) -> None:
        self._missing += column.null_count

    def column(self, rows: int) -> Column:
        nothing = value_kind(self._held) == "nothing" or self._missing == rows
        why = "all missing" if nothing else f"holds {self._held}; expected text, numbers or dates"
        return Column(self.name, "dropped", why, rows if nothing else self._missing, None)


class _Numbers:
    """A column of numbers; `counts` where it may count the rows."""

    piece = PIECE

    def __init__(self, name: str, counts: bool) -> None:
        self.name, self._missing = name, 0
        self._low, self._high = np.inf, -np.inf
        self._counts, self._last = counts, -np.inf

    def add(self, column: Any) -> None:
        x, missing = as_numbers(column, self.name)
        if missing is not None:
            self._missing += int(missing.sum())
            x = x[~missing]
        if not len(x):
            return
        self._low, self._high = min(self._low, float(x.min())), max(self._high, float(x.max()))
        if self._counts:
            self._counts = missing is None and x[0] > self._last and bool((np.diff(x) > 0).all())
            self._last = x[-1]

    def column(self, rows: int) -> Column:
        if self._missing == rows:
            return Column(self.name, "dropped", "all missing", rows, None)
        low, high = _shown(self._low), _shown(self._high)
        kind, why = "number", f"{low} to {high}"
        if self._low == self._high:
            kind, why = ("number", f"{low} or missing") if self._missing else ("dropped", f"constant: always {low}")
        elif self._counts and rows > max(FEW, _DENSE * (self._high - self._low)):
            kind, why = "dropped", f"identifier: counts the rows, {low} to {high}"
        return Column(self.name, kind, why, self._missing, None)


class _Dates:
    """A column of dates or times."""

    piece = PIECE

    def __init__(self, name: str) -> None:
        self.name, self._missing = name, 0
        self._low, self._high = np.inf, -np.inf

    def add(self, column: Any) -> None:
        days, seconds, missing = as_days(column, self.name, 0, lenient=False)
        moments = days + seconds / 86_400
        if missing is not None:
            self._missing += int(missing.sum())
            moments = moments[~missing]
        if len(moments):
            self._low, self._high = min(self._low, float(moments.min())), max(self._high, float(moments.max()))

    def column(self, rows: int) -> Column:
        if self._missing == rows:
            return Column(self.name, "dropped", "all missing", rows, None)
        low, high = _day(self._low), _day(self._high)
        if self._low == self._high and not self._missing:
            return Column(self.name, "dropped", f"constant: always {low}", 0, None)
        return Column(self.name, "date", f"{low} to {high}", self._missing, None)


class _Texts(ValueCounts):
    """A column of text, of true and false, or of what is to be categories."""

    def add(self, column: Any) -> None:
        if self.overflow and self.overflow[0] >= NEARLY_ALL * self.overflow[1]:
            self.rows, self.missing = self.rows + len(column), self.missing + column.null_count
        else:  # not known to be an identifier
            super().add(column)

    def column(self, rows: int) -> Column:
        texts, counts = self.counts()
        distinct, present = self.overflow or (len(texts), rows - self.missing)
        noun = {"text": "text", "number": "number", "bool": "value"}[self.form] + "s" * (distinct > 1)
        hint = ""
        if not present:
            return Column(self.name, "dropped", "all missing", self.missing, 0)
        if distinct == 1 and not self.missing:
            return Column(self.name, "dropped", f"constant: always {texts[0].as_py()!r}", 0, 1)
        if self.form == "text":
            read = self._read_as_dates(texts, counts) or self._read_as_numbers(texts, counts)
            if isinstance(read, Column):
                return read
            hint = read
        if present > FEW and distinct >= NEARLY_ALL * present:
            why = f"identifier: {distinct:,} distinct {noun} in {present:,} rows{hint}"
            return Column(self.name, "dropped", why, self.missing, distinct)
        why = f"{'at least ' if self.overflow else ''}{distinct:,} distinct {noun}"
        if distinct > MOST:
            why += f", of which the {MOST:,} most frequent count and the others are as not seen"
        return Column(self.name, "category", why + hint, self.missing, distinct)

    def _read_as_dates(self, texts: Any, counts: Array) -> Column | None:
        """The column as dates, where NEARLY_ALL rows with text have one."""
        if not _most_match(texts, ISO):
            return None
        cleaned = null_missing_markers(texts)
        marked = cleaned.is_null().to_numpy()
        days, seconds, bad = as_days(cleaned, self.name, 0, lenient=True)
        good = np.ones(len(days), bool) if bad is None else ~bad
        found, asked = int(counts[good].sum()), int(counts[~marked].sum())
        if not found or found < NEARLY_ALL * asked:
            return None
        moments = days[good] + seconds[good] / 86_400
        why = f"text of dates, {_day(moments.min())} to {_day(moments.max())}"
        if others := asked - found:
            example = texts.filter(_mask(~good & ~marked))[0].as_py()
            why += f"; in {pluralize(others, 'row')} it is none, for example {example!r}, which counts as missing"
        return Column(self.name, "date", why, self.missing + int(counts[~good].sum()), len(texts), others)

    def _read_as_numbers(self, texts: Any, counts: Array) -> "Column | str":
        """The column as numbers, where all its text is; where nearly all is, a hint at the rest."""
        _, pc = arrow()
        if not _most_match(texts, NUMBER):
            return ""
        cleaned = null_missing_markers(texts)
        marked = cleaned.is_null().to_numpy()
        is_number = pc.fill_null(pc.match_substring_regex(cleaned, NUMBER), True).to_numpy()
        if not is_number.all():
            share = counts[is_number & ~marked].sum() / counts[~marked].sum()
            example = texts.filter(_mask(~is_number))[0].as_py()
            return f"; {share:.0%} of it is numbers, {example!r} is not" if share >= NEARLY_ALL else ""
        codes = pc.any(pc.match_substring_regex(cleaned, r"^[+-]?0\d")).as_py()  # 007, or a zip code
        meant = self.missing or marked.any() or pc.any(pc.match_substring_regex(cleaned, r"[.eE]")).as_py()
        if codes or not meant:
            return ""
        x, _ = as_numbers(cleaned.filter(_mask(~marked)), self.name)
        why = f"text of numbers, {_shown(x.min())} to {_shown(x.max())}"
        if marked.any():
            why += f"; {texts.filter(_mask(marked))[0].as_py()!r} counts as missing"
        return Column(self.name, "number", why, self.missing + int(counts[marked].sum()), len(texts))


def _most_match(texts: Any, pattern: str) -> bool:
    """Whether half of the most frequent texts match: only then all are looked at."""
    _, pc = arrow()
    cleaned = null_missing_markers(texts.slice(0, _LOOKED_AT)).drop_null()
    return len(cleaned) > 0 and pc.sum(pc.match_substring_regex(cleaned, pattern)).as_py() >= len(cleaned) / 2


def _mask(where: Array) -> Any:
    pa, _ = arrow()
    return pa.array(where)


def _shown(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) and abs(number) < 1e15 else f"{number:.6g}"


def _day(moment: float) -> str:
    return iso(moment).removesuffix("T00:00:00")
