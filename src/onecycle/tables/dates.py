"""Columns of dates or times: their parts, such as the year and the weekday, and the encoder that standardises these.

Times with a zone are converted to UTC, so that no database of zones is needed. Years run from 1 to 9999.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import numpy as np

from onecycle.errors import DataError
from onecycle.tables.json_reader import JsonReader, damaged
from onecycle.tables.numbers import CHUNK_ROWS, Moments, Sample, standardise
from onecycle.tables.values import (
    NEARLY_ALL,
    Array,
    cell_error,
    decode_column,
    dictionary_codes,
    import_pyarrow,
    null_missing_markers,
    value_kind,
)

EXPECTED = "a date such as 2024-01-31 or 2024-01-31 18:30:00"
ISO = r"^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,9})?)?)?(Z|[+-]\d\d:?\d\d)?$"
_DAY = 86_400  # seconds
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896  # 0001-01-01 and 9999-12-31, as days since 1970
_DAY_PARTS = {  # part → function of pyarrow.compute
    "year": "year",
    "month": "month",
    "day": "day",
    "weekday": "day_of_week",  # 0 is Monday
    "day of year": "day_of_year",
}
_MINUTE_PARTS = ("hour", "minute")
_PARTS = (*_DAY_PARTS, *_MINUTE_PARTS, "elapsed")


class UnparsedDates:
    """Counts text that is not a date in the rows of a date column that are not trained on."""

    chunk_rows = CHUNK_ROWS

    def __init__(self, name: str) -> None:
        self.name, self.present, self.count = name, 0, 0

    def add(self, column: Any) -> None:
        """Add rows."""
        present = 0
        for values, places in dictionary_codes(column):
            missing = null_missing_markers(values).is_null().to_numpy(zero_copy_only=False)
            present += int((~np.append(missing, True)[places]).sum())  # the last is for null, whose place is -1
        missing = as_days(column, self.name, 0, lenient=True)[2]
        dates = len(column) - (0 if missing is None else int(missing.sum()))
        self.present, self.count = self.present + present, self.count + present - dates


class DateStats:
    """Collects the statistics of a column of dates over the training rows.

    `unparsed` is the number of rows whose text is not a date, if the column is text that is read as dates; None for
    other columns. The column is read leniently (see `as_days`) if training rows have such text, or if at most 5% of the
    other rows do, which `rest` counts.
    """

    chunk_rows = CHUNK_ROWS

    def __init__(self, name: str, unparsed: int | None = None) -> None:
        self.name, self.lenient, self.rows = name, bool(unparsed), 0
        self.rest = UnparsedDates(name) if unparsed == 0 else None
        self._parts = {part: Moments() for part in _PARTS}
        self._sample = Sample()

    def add(self, column: Any) -> None:
        """Add at most `chunk_rows` rows of the column. Raises DataError for a cell that is not a date."""
        days, seconds, missing = as_days(column, self.name, self.rows, self.lenient)
        present = None if missing is None else ~missing
        elapsed = days + seconds / _DAY
        self._sample.add(elapsed, self.rows, present)
        self.rows += len(days)
        if present is not None:
            days, seconds, elapsed = days[present], seconds[present], elapsed[present]
        self._parts["elapsed"].add(elapsed)
        for whole, parts in ((days, _DAY_PARTS), (_minutes(seconds), _MINUTE_PARTS)):
            distinct, counts = _value_counts(whole)
            for part in parts:
                self._parts[part].add(_part_of(distinct, part), counts)

    def finish(self) -> "DateEncoder":
        """Return the encoder with these statistics. Parts that were the same in all rows are left out."""
        parts = {part: (moments.mean, moments.std) for part, moments in self._parts.items() if not moments.constant}
        dates, median = self._parts["elapsed"], self._sample.median
        fill = iso(dates.mean if median is None else median)
        few = self.rest is not None and 0 < self.rest.count <= (1 - NEARLY_ALL) * (dates.count + self.rest.present)
        return DateEncoder(self.name, fill, parts, 0 < dates.count < self.rows, self.lenient or few)


@dataclass(frozen=True)
class DateEncoder:
    """Standardises the parts of a column's dates.

    Attributes:
        name: Name of the column.
        fill: The date that stands for a missing one, in ISO 8601: the training rows' median.
        parts: Mean and standard deviation of each part in the training rows.
        flag: Whether training rows had missing values; then the first column of the matrix marks them.
        lenient: Whether text that is not a date counts as missing; if not, it is an error.
    """

    chunk_rows: ClassVar = CHUNK_ROWS
    name: str
    fill: str
    parts: Mapping[str, tuple[float, float]]
    flag: bool
    lenient: bool

    def write(self, column: Any, first_row: int, out: Sequence[Array]) -> None:
        """Write the parts of a chunk of the column to `out`, with `flag` first which rows are missing."""
        days, seconds, missing = as_days(column, self.name, first_row, self.lenient)
        if missing is not None:
            fill = datetime.fromisoformat(self.fill).replace(tzinfo=UTC).timestamp()
            days[missing], seconds[missing] = divmod(fill, _DAY)
        rows = dict(zip(self.parts, out[self.flag :], strict=True))
        if self.flag:
            out[0][:] = 0 if missing is None else missing
        for whole, unit_parts in ((days, _DAY_PARTS), (_minutes(seconds), _MINUTE_PARTS)):
            if parts := self.parts.keys() & {*unit_parts}:
                distinct, places = _dense_range(whole)
                for part in parts:
                    values = standardise(_part_of(distinct, part), *self.parts[part])
                    rows[part][:] = values if places is None else values[places]
        if "elapsed" in rows:
            standardise(days + seconds / _DAY, *self.parts["elapsed"], rows["elapsed"])

    def to_dict(self) -> dict[str, Any]:
        """Return the encoder as plain JSON."""
        parts = {part: list(moments) for part, moments in self.parts.items()}
        return {"kind": "date", **asdict(self), "parts": parts}

    @classmethod
    def from_dict(cls, entry: JsonReader) -> "DateEncoder":
        """Return the encoder that `to_dict` wrote. Raises DataError for anything else."""
        fill, moments_of = entry.text("fill"), entry.child("parts")
        parts = {part: moments_of.numbers(part) for part in moments_of}
        for part, moments in parts.items():
            if part not in _PARTS or len(moments) != 2 or moments[1] <= 0:
                raise damaged(f"{moments_of.path}.{part}", moments, "mean and std of a part of dates")
        try:
            datetime.fromisoformat(fill)
        except ValueError:
            raise damaged(f"{entry.path}.fill", fill, "an ISO date") from None
        pairs = {part: (mean, std) for part, (mean, std) in parts.items()}
        return cls(entry.text("name"), fill, pairs, entry.flag("flag"), entry.flag("lenient"))


def as_days(column: Any, name: str, first_row: int, lenient: bool) -> tuple[Array, Array, Array | None]:
    """Return days since 1970 (int64) and seconds of the day (float64) of a ChunkedArray, and the mask of missing rows.

    The mask is None if no row is missing. Raises DataError for a column that cannot be dates, and with the row for text
    that is not an ISO date; with `lenient` such text is missing.
    """
    if (kind := value_kind(column.type)) == "text":
        column = _texts_to_dates(column, name, first_row, lenient)
    elif kind == "nothing":
        column = column.cast("timestamp[s]")
    elif kind != "date":
        raise DataError(f'column "{name}" holds {column.type}; expected dates, or text with {EXPECTED}')
    moments = decode_column(column).to_numpy()
    missing = np.isnat(moments)
    any_missing = bool(missing.any())
    ticks_per_day = int(np.timedelta64(1, "D") / np.timedelta64(1, np.datetime_data(moments.dtype)[0]))
    ticks = np.where(missing, 0, moments.view(np.int64)) if any_missing else moments.view(np.int64)
    if ticks_per_day == 1:
        days, seconds = ticks, np.zeros(len(ticks))
    else:
        days = ticks // ticks_per_day
        seconds = (ticks - days * ticks_per_day) / (ticks_per_day // _DAY)
    return days.clip(_FIRST_DAY, _LAST_DAY), seconds, missing if any_missing else None


def iso(days: float) -> str:
    """Return the ISO text of a moment, given as days since 1970, in whole seconds."""
    seconds = min(round(days % 1 * _DAY), _DAY - 1)
    return (datetime(1970, 1, 1) + timedelta(int(days // 1), seconds)).isoformat()


def _minutes(seconds: Array) -> Array:
    """Return the minutes of the day of seconds of the day."""
    return (seconds / 60).astype(np.int64)


def _part_of(whole: Array, part: str) -> Array:
    """Return a part of days since 1970, or of minutes of the day."""
    if part in _MINUTE_PARTS:
        return whole // 60 if part == "hour" else whole % 60
    pa, pc = import_pyarrow()
    return getattr(pc, _DAY_PARTS[part])(pa.array(whole.astype("datetime64[D]"))).to_numpy()


def _dense_range(whole: Array) -> tuple[Array, Array | None]:
    """Return consecutive whole numbers and each number's place among them; `whole` and None if that were no fewer."""
    if not len(whole) or whole.max() - whole.min() > len(whole):
        return whole, None
    return np.arange(whole.min(), whole.max() + 1), whole - whole.min()


def _value_counts(whole: Array) -> tuple[Array, Array]:
    """Return the different whole numbers and how often each occurs."""
    values, places = _dense_range(whole)
    if places is None:
        return np.unique(whole, return_counts=True)
    counts = np.bincount(places)  # without sorting
    return values[counts > 0], counts[counts > 0]


def _texts_to_dates(column: Any, name: str, first_row: int, lenient: bool) -> Any:
    """Return text as timestamps without a zone, converted to UTC if it has one."""
    pa, _ = import_pyarrow()
    if pa.types.is_dictionary(column.type):  # each text once: to repeat them could take any amount of memory
        dates, done = [np.empty(0, "M8[us]")], 0
        for values, places in dictionary_codes(column):
            parsed = _texts_to_dates(pa.chunked_array([values]), name, 0, lenient=True)
            wrong = parsed.is_null().to_numpy() & null_missing_markers(values).is_valid().to_numpy(zero_copy_only=False)
            wrong = np.append(wrong, False)[places]
            if not lenient and wrong.any():
                raise cell_error(column, name, done + int(wrong.argmax()), first_row, EXPECTED)
            dates.append(np.append(parsed.to_numpy(), np.datetime64("NaT"))[places])
            done += len(places)
        return pa.chunked_array([np.concatenate(dates)])
    texts = null_missing_markers(column)
    for zone in (None, "UTC"):  # Arrow reads a column in which all texts or none have a zone
        try:
            return texts.cast(pa.timestamp("us", zone))
        except pa.ArrowInvalid:
            continue
    rows = texts.to_pylist()
    moments = {text: _parse_date(text) for text in {*rows} if text is not None}
    bad = next((row for row, text in enumerate(rows) if text is not None and moments[text] is None), None)
    if bad is not None and not lenient:
        raise cell_error(column, name, bad, first_row, EXPECTED)
    return pa.chunked_array([pa.array([moments.get(text) for text in rows], pa.timestamp("us"))])


def _parse_date(text: str) -> datetime | None:
    if not re.match(ISO, text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None
