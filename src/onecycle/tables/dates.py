"""A column of dates or times: its parts, such as the year and the weekday, and what makes standardised numbers of them.

Times with a zone are taken in UTC, so that no database of zones is needed. Years run from 1 to 9999.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np

from onecycle.errors import DataError
from onecycle.tables.numbers import PIECE, Moments, Sample, standardise
from onecycle.tables.values import (
    NEARLY_ALL,
    Array,
    cell_error,
    decode_column,
    import_pyarrow,
    null_missing_markers,
    value_kind,
)

EXPECTED = "a date such as 2024-01-31 or 2024-01-31 18:30:00"
ISO = r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?(Z|[+-]\d\d:?\d\d)?$"
_DAY = 86_400
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # 0001-01-01 and 9999-12-31, as days since 1970


class UnparsedDates:
    """Counts the text that is no date in rows of a column of dates that are not trained on."""

    piece = PIECE

    def __init__(self, name: str) -> None:
        self.name, self.present, self.count = name, 0, 0

    def add(self, column: Any) -> None:
        """Take in rows."""
        present = len(column) - null_missing_markers(decode_column(column)).null_count
        missing = as_days(column, self.name, 0, lenient=True)[2]
        dates = len(column) - (0 if missing is None else int(missing.sum()))
        self.present, self.count = self.present + present, self.count + present - dates


class DateStats:
    """What training rows say of a column of dates; takes them piece by piece.

    `others` is how many of the rows have text that is no date, of text that was taken for dates; None of other columns.
    Such a column is `lenient` (see `as_days`) where training rows have such text, and where a few of the rest have:
    those that `slips` counts.
    """

    piece = PIECE

    def __init__(self, name: str, others: int | None = None) -> None:
        self.name, self.lenient, self.rows = name, bool(others), 0
        self.slips = UnparsedDates(name) if others == 0 else None
        self._parts = {part: Moments() for part in PARTS}
        self._sample = Sample()

    def add(self, column: Any) -> None:
        """Take in at most `piece` rows of a column. Raises DataError for what is no date."""
        days, seconds, missing = as_days(column, self.name, self.rows, self.lenient)
        present = None if missing is None else ~missing
        elapsed = days + seconds / _DAY
        self._sample.add(elapsed, self.rows, present)
        self.rows += len(days)
        if present is not None:
            days, seconds, elapsed = days[present], seconds[present], elapsed[present]
        self._parts["elapsed"].add(elapsed)
        for whole, functions in ((days, _OF_DAY), (_minutes(seconds), _OF_MINUTE)):
            different, counts = _different(whole)
            for part, function in functions.items():
                self._parts[part].add(function(different), counts)

    def finish(self) -> "FittedDate":
        """The column's preprocessing. Parts that were the same in all rows are left out."""
        parts = {part: (found.mean, found.std) for part, found in self._parts.items() if not found.constant}
        dates, median = self._parts["elapsed"], self._sample.median
        middle = dates.mean if median is None else median
        few = self.slips is not None and 0 < self.slips.count <= (1 - NEARLY_ALL) * (dates.count + self.slips.present)
        return FittedDate(self.name, iso(middle), parts, 0 < dates.count < self.rows, self.lenient or few)


@dataclass(frozen=True)
class FittedDate:
    """Makes standardised numbers of a column's parts; a missing date is taken for `fill`.

    `flag`: some were missing in training, so a column of the matrix says which are.
    """

    piece: ClassVar = PIECE
    name: str
    fill: str  # ISO
    parts: Mapping[str, tuple[float, float]]  # part → mean, std
    flag: bool
    lenient: bool

    def write(self, column: Any, first_row: int, out: Sequence[Array]) -> None:
        """Write the parts of a piece of the column to `out`, with `flag` first where it is missing."""
        days, seconds, missing = as_days(column, self.name, first_row, self.lenient)
        if missing is not None:
            filler = datetime.fromisoformat(self.fill).replace(tzinfo=UTC).timestamp()
            days[missing], seconds[missing] = divmod(filler, _DAY)
        rows = dict(zip(self.parts, out[self.flag :], strict=True))
        if self.flag:
            out[0][:] = 0 if missing is None else missing
        for whole, functions in ((days, _OF_DAY), (_minutes(seconds), _OF_MINUTE)):
            wanted = functions.keys() & self.parts
            listed, places = _listed(whole) if wanted else (whole, None)
            for part in wanted:
                values = standardise(functions[part](listed), *self.parts[part])
                rows[part][:] = values if places is None else values[places]
        if "elapsed" in rows:
            standardise(days + seconds / _DAY, *self.parts["elapsed"], rows["elapsed"])


def as_days(column: Any, name: str, first_row: int, lenient: bool) -> tuple[Array, Array, Array | None]:
    """Of a ChunkedArray the days since 1970 (int64), the seconds of the day (float64), and where a date is missing.

    The last is None where none is. Raises DataError for a column that cannot be dates and for text that is no ISO date,
    with its row; with `lenient` such text is missing.
    """
    column = decode_column(column)
    if (sort := value_kind(column.type)) == "text":
        column = _texts_to_dates(column, name, first_row, lenient)
    elif sort == "nothing":
        column = column.cast("timestamp[s]")
    elif sort != "date":
        raise DataError(f'column "{name}" holds {column.type}; expected dates, or text with {EXPECTED}')
    moments = column.to_numpy()
    missing = np.isnat(moments)
    absent = bool(missing.any())
    unit = np.datetime_data(moments.dtype)[0]
    a_day = {"D": 1, "s": _DAY, "ms": _DAY * 10**3, "us": _DAY * 10**6, "ns": _DAY * 10**9}[unit]
    ticks = moments.view(np.int64)
    if absent:
        ticks = np.where(missing, 0, ticks)
    if a_day == 1:
        days, seconds = ticks, np.zeros(len(ticks))
    else:
        days = ticks // a_day
        seconds = (ticks - days * a_day) / (a_day // _DAY)
    return days.clip(_FIRST_DAY, _LAST_DAY), seconds, missing if absent else None


def iso(days: float) -> str:
    """The ISO text of a moment, given as days since 1970, in whole seconds."""
    whole = datetime.fromordinal(int(days // 1) - _FIRST_DAY + 1)
    seconds = min(round(days % 1 * _DAY), _DAY - 1)
    return whole.replace(hour=seconds // 3600, minute=seconds // 60 % 60, second=seconds % 60).isoformat()


def _minutes(seconds: Array) -> Array:
    """Minutes of the day of seconds of the day."""
    return (seconds / 60).astype(np.int64)


def _different(whole: Array) -> tuple[Array, Array]:
    """The different ones of whole numbers, and how often each occurs."""
    if not len(whole) or whole.max() - whole.min() > len(whole):
        return np.unique(whole, return_counts=True)
    counts = np.bincount(whole - whole.min())  # without sorting
    present = np.flatnonzero(counts)
    return present + whole.min(), counts[present]


def _listed(whole: Array) -> tuple[Array, Array | None]:
    """Whole numbers as fewer ones, in which each is found at its place; or as they are and None."""
    if not len(whole) or whole.max() - whole.min() > len(whole):
        return whole, None
    return np.arange(whole.min(), whole.max() + 1), whole - whole.min()


def _texts_to_dates(column: Any, name: str, first_row: int, lenient: bool) -> Any:
    """Text as timestamps without a zone, in UTC where it has one."""
    pa, _ = import_pyarrow()
    texts = null_missing_markers(column)
    for zone in (None, "UTC"):  # whole columns of one kind are Arrow's to read; it takes no mixture
        try:
            return texts.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            continue
    known = {text: _moment(text) for text in set(texts.to_pylist()) if text is not None}
    bad = [row for row, text in enumerate(texts.to_pylist()) if text is not None and known[text] is None]
    if bad and not lenient:
        raise cell_error(column, name, bad[0], first_row, EXPECTED)
    return pa.chunked_array([pa.array([known.get(text) for text in texts.to_pylist()], pa.timestamp("us"))])


def _moment(text: str) -> datetime | None:
    if not re.match(ISO, text):
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    except (ValueError, OverflowError):
        return None


def _calendar(unit: str) -> Callable[[Array], Array]:
    return lambda days: days.astype("datetime64[D]").astype(f"datetime64[{unit}]").astype(np.int64)


_years, _months = _calendar("Y"), _calendar("M")
_OF_DAY: dict[str, Callable[[Array], Array]] = {
    "year": lambda days: _years(days) + 1970,
    "month": lambda days: _months(days) % 12 + 1,
    "day": lambda days: days - _months(days).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + 1,
    "weekday": lambda days: (days + 3) % 7,  # 0 is Monday; 1970 began on a Thursday
    "day of year": lambda days: (
        days - _years(days).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64) + 1
    ),
}
_OF_MINUTE: dict[str, Callable[[Array], Array]] = {
    "hour": lambda minutes: minutes // 60,
    "minute": lambda minutes: minutes % 60,
}
PARTS = (*_OF_DAY, *_OF_MINUTE, "elapsed")
