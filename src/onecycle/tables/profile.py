"""Profile a table's columns: which are numbers, categories or dates, which are dropped, and why, in words."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from onecycle.core.choices import ColumnKind
from onecycle.errors import DataError, SettingError, did_you_mean, pluralize
from onecycle.tables.categories import MAX_CATEGORIES, ValueCounts
from onecycle.tables.dates import ISO, as_days, iso
from onecycle.tables.numbers import CHUNK_ROWS
from onecycle.tables.spec import TableSpec, column_hint
from onecycle.tables.target_stats import unknown_target
from onecycle.tables.values import (
    AS_WRITTEN,
    NEARLY_ALL,
    NUMBER,
    USUAL_TEXTS,
    Array,
    as_numbers,
    import_pyarrow,
    null_missing_markers,
    update_all,
    value_kind,
)

KINDS: tuple[ColumnKind, ...] = get_args(ColumnKind)
_VALUE_KINDS = {  # which values a column of each kind may hold
    "number": ("number", "text", "bool", "nothing"),
    "category": ("number", "text", "bool", "date", "nothing"),
    "date": ("date", "text", "nothing"),
    "dropped": ("number", "text", "bool", "date", "nothing", "other"),
}
_SMALL_TABLE = 20  # rows; in fewer, different values in each row do not make an identifier
_DENSITY = 0.6  # rows / range of numbers that count the rows, at least: training rows are only a part of the table
_TRIED_TEXTS = 1_000  # the most frequent texts; if most of them look like dates or numbers, all are read


@dataclass(frozen=True)
class ColumnProfile:
    """A column of a table and the kind it is read as.

    Attributes:
        name: Name of the column.
        kind: "number", "category", "date" or "dropped".
        why: Reason for the kind, or the range of the values.
        missing: Rows without a value.
        distinct: Different values; None if they were not counted, as for numbers and dates.
        unparsed: Of text that is read as dates, rows whose text is not a date (they count as missing); else None.
        as_written: Whether text counts exactly as it is written, blanks and words such as "NA" too, as the user said.
    """

    name: str
    kind: ColumnKind
    why: str
    missing: int
    distinct: int | None
    unparsed: int | None = None
    as_written: bool = False


def profile_columns(table: Any, spec: TableSpec) -> list[ColumnProfile]:
    """Return the profile of each column of a pyarrow Table but the targets; `spec.kinds` overrides what is inferred.

    - Numbers, durations and times of day (in seconds) are numbers, even if there are only few different ones.
    - Booleans, text and Arrow dictionaries are categories; of more than 1,000 the most frequent 1,000 count.
    - Dates and times are dates, and so is text of which 95% is ISO dates.
    - Text that is all numbers is numbers if some of it is blank or "?" or has a decimal point.
    - Dropped are constants, columns without values, lists and bytes, and identifiers: text in more than 20 rows of
      which 95% is different, and whole numbers that count the rows: each larger than the last, few of them left out.

    Raises SettingError for unknown columns and kinds, DataError for a table without rows, for two columns of one name,
    and if no column is left to learn from.
    """
    profiler = TableProfiler(table.schema, spec)
    profiler.add(table)
    return profiler.features()


class TableProfiler:
    """`profile_columns` of a table that comes as RecordBatches or Tables, one at a time."""

    def __init__(self, schema: Any, spec: TableSpec) -> None:
        self._rows, self._kinds, targets = 0, dict(spec.kinds), spec.targets
        names: list[str] = schema.names
        for name, times in Counter(names).items():
            if times > 1:
                raise DataError(f'{times} columns are called "{name}"; expected one: rename or drop the others')
        for name in targets:
            if name not in names:
                raise unknown_target(name, names)
        for name, kind in self._kinds.items():
            if not (spec.labels_as_written and name in targets):
                _check_kind(name, kind, schema)
        self._profilers = [
            _column_profiler(name, arrow_type, self._kinds.get(name))
            for name, arrow_type in zip(names, schema.types, strict=True)
            if name not in targets
        ]

    def add(self, table: Any) -> None:
        """Add rows. Raises DataError for a cell that `kinds` rules out."""
        self._rows += table.num_rows
        update_all(self._profilers, table)

    def features(self) -> list[ColumnProfile]:
        """Return `profiles`. Raises DataError if there were no rows, or if no column is a feature."""
        if not self._rows:
            raise DataError("the table has no rows; expected at least one")
        columns = self.profiles()
        if not columns:
            raise DataError(
                "no column is left to learn from: each is predicted, left out with drop (--drop), or what the split is "
                "made by; expected at least one more"
            )
        if all(column.kind == "dropped" for column in columns):
            dropped = ", ".join(f'"{column.name}" ({column.why})' for column in columns[:5])
            raise DataError(f"no column is left to learn from; dropped: {dropped}")
        return columns

    def profiles(self) -> list[ColumnProfile]:
        """Return the profile of each column, even if none is a feature."""
        columns = [profiler.profile(self._rows) for profiler in self._profilers]
        for i, column in enumerate(columns):
            if (kind := self._kinds.get(column.name)) is not None:
                as_written = kind == "category"
                columns[i] = replace(column, kind=kind, why="set by kinds", unparsed=None, as_written=as_written)
        return columns


def _check_kind(name: str, kind: str, schema: Any) -> None:
    """Raise SettingError if `kinds` may not set the column to this kind."""
    if name not in schema.names:
        raise SettingError(f'kinds names "{name}", but there is no such column{column_hint(name, schema.names)}')
    if kind not in KINDS:
        raise SettingError(
            f'kinds sets "{name}" to {kind!r}; expected one of {", ".join(KINDS)}{did_you_mean(str(kind), KINDS)}'
        )
    arrow_type = schema.field(name).type
    if value_kind(arrow_type) not in _VALUE_KINDS[kind]:
        raise SettingError(f'kinds sets "{name}" to {kind}, but it holds {arrow_type}, which cannot be read as {kind}')


class _Profiler:
    """Profiles a column whose values are not read; base class for those that are read as numbers."""

    chunk_rows = CHUNK_ROWS

    def __init__(self, name: str, arrow_type: Any) -> None:
        self.name, self._arrow_type, self._missing = name, arrow_type, 0
        self._low, self._high = np.inf, -np.inf

    def add(self, column: Any) -> None:
        self._missing += len(column) if value_kind(self._arrow_type) == "nothing" else column.null_count

    def profile(self, rows: int) -> ColumnProfile:
        kind, why = ("dropped", "all missing") if self._missing == rows else self._kind_and_reason(rows)
        return ColumnProfile(self.name, kind, why, self._missing, None)

    def _kind_and_reason(self, rows: int) -> tuple[ColumnKind, str]:
        return "dropped", f"holds {self._arrow_type}; expected text, numbers or dates"

    def _add_numbers(self, x: Array, missing: Array | None) -> None:
        if missing is not None:
            self._missing += int(missing.sum())
            x = x[~missing]
        if len(x):
            self._low, self._high = min(self._low, float(x.min())), max(self._high, float(x.max()))


class _NumberProfiler(_Profiler):
    """Profiles a column of numbers."""

    def __init__(self, name: str, arrow_type: Any) -> None:
        super().__init__(name, arrow_type)
        self._counts_rows, self._last = import_pyarrow()[0].types.is_integer(arrow_type), -np.inf

    def add(self, column: Any) -> None:
        x, missing = as_numbers(column, self.name)
        self._add_numbers(x, missing)
        if self._counts_rows and len(x):
            self._counts_rows = missing is None and x[0] > self._last and bool((np.diff(x) > 0).all())
            self._last = x[-1]

    def _kind_and_reason(self, rows: int) -> tuple[ColumnKind, str]:
        low, high = _number_text(self._low), _number_text(self._high)
        if self._low == self._high:
            return ("number", f"{low} or missing") if self._missing else ("dropped", f"constant: always {low}")
        if self._counts_rows and rows > max(_SMALL_TABLE, _DENSITY * (self._high - self._low)):
            return "dropped", f"identifier: counts the rows, {low} to {high}"
        return "number", f"{low} to {high}"


class _DateProfiler(_Profiler):
    """Profiles a column of dates or times, as days since 1970."""

    def add(self, column: Any) -> None:
        days, seconds, missing = as_days(column, self.name, 0, lenient=False)
        self._add_numbers(days + seconds / 86_400, missing)

    def _kind_and_reason(self, rows: int) -> tuple[ColumnKind, str]:
        low, high = _date_text(self._low), _date_text(self._high)
        constant = self._low == self._high and not self._missing
        return ("dropped", f"constant: always {low}") if constant else ("date", f"{low} to {high}")


class _TextProfiler(ValueCounts):
    """Profiles a column of text, of booleans, or of other values that are to be categories."""

    def add(self, column: Any) -> None:
        if self.overflow and self.overflow[0] >= NEARLY_ALL * self.overflow[1]:  # is known to be an identifier
            self.rows, self.missing = self.rows + len(column), self.missing + column.null_count
        else:
            super().add(column)

    def profile(self, rows: int) -> ColumnProfile:
        self.merge_booleans()
        texts, counts = self.counts()
        distinct, present = self.overflow or (len(texts), rows - self.missing)
        noun = {"text": "text", "number": "number", "bool": "value"}[self.form] + "s" * (distinct > 1)
        hint = ""
        if not present:
            return ColumnProfile(self.name, "dropped", "all missing", self.missing, 0)
        if distinct == 1 and not self.missing:
            return ColumnProfile(self.name, "dropped", f"constant: always {texts[0].as_py()!r}", 0, 1)
        if self.form == "text":
            if (profile := self._as_dates(texts, counts)) is not None:
                return profile
            profile, hint = self._as_numbers(texts, counts)
            if profile is not None:
                return profile
        if present > _SMALL_TABLE and distinct >= NEARLY_ALL * present:
            why = f"identifier: {distinct:,} distinct {noun} in {present:,} rows{hint}"
            return ColumnProfile(self.name, "dropped", why, self.missing, distinct)
        why = f"{'at least ' if self.overflow else ''}{distinct:,} distinct {noun}"
        if distinct > MAX_CATEGORIES:
            why += f", of which the {MAX_CATEGORIES:,} most frequent count and the others are treated as unseen"
        return ColumnProfile(self.name, "category", why + hint, self.missing, distinct)

    def _as_dates(self, texts: Any, counts: Array) -> ColumnProfile | None:
        """Return the profile of a column of dates if NEARLY_ALL rows with text have one."""
        pa, _ = import_pyarrow()
        if not _most_match(texts, ISO):
            return None
        cleaned = null_missing_markers(texts)
        absent = cleaned.is_null().to_numpy()
        days, seconds, not_a_date = as_days(cleaned, self.name, 0, lenient=True)
        is_date = np.ones(len(days), bool) if not_a_date is None else ~not_a_date
        n_dates, n_present = int(counts[is_date].sum()), int(counts[~absent].sum())
        if not n_dates or n_dates < NEARLY_ALL * n_present:
            return None
        moments = days[is_date] + seconds[is_date] / 86_400
        why = f"text of dates, {_date_text(moments.min())} to {_date_text(moments.max())}"
        if unparsed := n_present - n_dates:
            example = texts.filter(pa.array(~is_date & ~absent))[0].as_py()
            why += f"; not a date in {pluralize(unparsed, 'row')}, for example {example!r}, which counts as missing"
        missing = self.missing + int(counts[~is_date].sum())
        return ColumnProfile(self.name, "date", why, missing, len(texts), unparsed)

    def _as_numbers(self, texts: Any, counts: Array) -> tuple[ColumnProfile | None, str]:
        """Return the profile of a column of numbers if all text is numbers; if nearly all is, a hint at the rest."""
        pa, pc = import_pyarrow()
        if not _most_match(texts, NUMBER):
            return None, ""
        cleaned = null_missing_markers(texts)
        absent = cleaned.is_null().to_numpy()
        is_number = pc.fill_null(pc.match_substring_regex(cleaned, NUMBER), True).to_numpy()
        if not is_number.all():
            share = counts[is_number & ~absent].sum() / counts[~absent].sum()
            example = texts.filter(pa.array(~is_number))[0].as_py()
            return None, f"; {share:.0%} of it is numbers, {example!r} is not" if share >= NEARLY_ALL else ""
        are_codes = pc.any(pc.match_substring_regex(cleaned, r"^[+-]?0\d")).as_py()  # 007, or a zip code
        has_decimals = pc.any(pc.match_substring_regex(cleaned, r"[.eE]")).as_py()
        if are_codes or not (self.missing or absent.any() or has_decimals):
            return None, ""
        x, missing = as_numbers(cleaned, self.name)  # infinity is missing, too
        finite = x if missing is None else x[~missing]
        if not len(finite):
            return None, ""
        why = f"text of numbers, {_number_text(finite.min())} to {_number_text(finite.max())}"
        n_missing = self.missing
        if missing is not None:
            why += f"; {texts.filter(pa.array(missing))[0].as_py()!r} counts as missing"
            n_missing += int(counts[missing].sum())
        return ColumnProfile(self.name, "number", why, n_missing, len(texts)), ""


def _column_profiler(name: str, arrow_type: Any, kind: str | None) -> _Profiler | _TextProfiler:
    """Return the profiler for a column; `kind` is what the user set it to, if anything."""
    pa, _ = import_pyarrow()
    holds = value_kind(arrow_type)
    if holds in ("other", "nothing") or kind == "dropped":
        return _Profiler(name, arrow_type)
    if holds == "date":
        return _DateProfiler(name, arrow_type)
    if holds == "number" and kind != "category" and not pa.types.is_dictionary(arrow_type):
        return _NumberProfiler(name, arrow_type)
    return _TextProfiler(name, AS_WRITTEN if kind == "category" else USUAL_TEXTS)


def _most_match(texts: Any, pattern: str) -> bool:
    """Return whether half of the most frequent texts match: only then all are looked at."""
    _, pc = import_pyarrow()
    cleaned = null_missing_markers(texts.slice(0, _TRIED_TEXTS)).drop_null()
    return len(cleaned) > 0 and pc.sum(pc.match_substring_regex(cleaned, pattern)).as_py() >= len(cleaned) / 2


def _number_text(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) and abs(number) < 1e15 else f"{number:.6g}"


def _date_text(days: float) -> str:
    return iso(days).removesuffix("T00:00:00")
