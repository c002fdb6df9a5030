"""What each column of a table is: numbers, categories, dates, or of no use; and why, in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from onecycle.core.choices import ColumnKind
from onecycle.errors import DataError, SettingError, did_you_mean
from onecycle.tables.column_profile import Column, profile_column
from onecycle.tables.target_stats import unknown_target
from onecycle.tables.values import update_all, value_kind

KINDS: tuple[ColumnKind, ...] = get_args(ColumnKind)
_ALLOWED = {  # what can be taken for which kind
    "number": ("number", "text", "bool", "nothing"),
    "category": ("number", "text", "bool", "date", "nothing"),
    "date": ("date", "text", "nothing"),
    "dropped": ("number", "text", "bool", "date", "nothing", "other"),
}


def survey(table: Any, target: Sequence[str] = (), kinds: Mapping[str, str] | None = None) -> list[Column]:
    """What each column of a pyarrow Table is, the target's left out; `kinds` has the last word on those it names.

    - numbers (durations and times of day in seconds) are numbers, also where there are only few different ones
    - true and false, text and Arrow's dictionaries are categories; of more than 1,000 the most frequent 1,000 count
    - dates and times are dates, and so is text of which 95% is ISO dates
    - text that is all numbers is numbers where some of it is blank or "?" or has a decimal point
    - dropped are constants, columns without values, lists and bytes, and identifiers: text in more than 20 rows of
      which 95% is different, and whole numbers that count the rows: each larger than the last, few of them left out

    Raises SettingError for unknown columns and kinds, DataError for a table without rows, for two columns of one name
    and where nothing is left to learn from.
    """
    found = Survey(table.schema, target, kinds)
    found.add(table)
    return found.columns()


class Survey:
    """`survey` of a table that comes as RecordBatches or Tables, one at a time."""

    def __init__(self, schema: Any, target: Sequence[str] = (), kinds: Mapping[str, str] | None = None) -> None:
        self._rows, self._kinds = 0, dict(kinds or {})
        names: list[str] = schema.names
        for name, times in Counter(names).items():
            if times > 1:
                raise DataError(f'{times} columns are called "{name}"; expected one: rename or drop the others')
        for name in target:
            if name not in names:
                raise unknown_target(name, names)
        for name, kind in self._kinds.items():
            self._check_kind(name, kind, schema, target)
        self._tallies = [
            profile_column(name, kind, self._kinds.get(name))
            for name, kind in zip(names, schema.types, strict=True)
            if name not in target
        ]

    def add(self, table: Any) -> None:
        """Take in rows. Raises DataError for a cell that `kinds` rules out."""
        self._rows += table.num_rows
        update_all(self._tallies, table)

    def columns(self) -> list[Column]:
        """What the columns are. Raises DataError as `survey` does."""
        if not self._rows:
            raise DataError("the table has no rows; expected at least one")
        found = self.described()
        if not found:
            raise DataError(
                "no column is left to learn from: each is predicted, left out with drop (--drop), or what the split is "
                "made by; expected at least one more"
            )
        if all(column.kind == "dropped" for column in found):
            dropped = ", ".join(f'"{column.name}" ({column.why})' for column in found[:5])
            raise DataError(f"no column is left to learn from; dropped: {dropped}")
        return found

    def described(self) -> list[Column]:
        """What the columns are, also where nothing could be learned from them."""
        found = [one.column(self._rows) for one in self._tallies]
        for place, column in enumerate(found):
            if (kind := self._kinds.get(column.name)) is not None:
                found[place] = Column(column.name, kind, "set by kinds", column.missing, column.distinct)
        return found

    def _check_kind(self, name: str, kind: str, schema: Any, target: Sequence[str]) -> None:
        if name in target:
            raise SettingError(f'kinds names "{name}", which is predicted; expected columns that it is predicted from')
        if name not in schema.names:
            raise SettingError(f'kinds names "{name}", but there is no such column{_near(name, schema.names)}')
        if kind not in KINDS:
            raise SettingError(
                f'kinds sets "{name}" to {kind!r}; expected one of {", ".join(KINDS)}{did_you_mean(str(kind), KINDS)}'
            )
        held = schema.field(name).type
        if value_kind(held) not in _ALLOWED[kind]:
            raise SettingError(f'kinds sets "{name}" to {kind}, but it holds {held}, which cannot be taken for that')


def _near(name: str, names: Sequence[str]) -> str:
    return did_you_mean(name, names) or f"; there are {', '.join(map(str, names[:10]))}"
