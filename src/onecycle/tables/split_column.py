"""The column that a split is made by: times, groups, or marks that say which rows are which."""

from typing import Any, TypeAlias

import numpy as np

from onecycle.errors import DataError, SettingError, did_you_mean, pluralize
from onecycle.tables.dates import as_days
from onecycle.tables.split_masks import Mask, Rows
from onecycle.tables.values import decode_column, value_kind

Table: TypeAlias = Any  # a pyarrow.Table; pyarrow comes without types

_MARKS = {"train": 0, "false": 0, "0": 0, "valid": 1, "validation": 1, "val": 1, "true": 1, "1": 1, "test": 2}


class SplitColumn:
    """A column that a split is made by; `where` begins its messages."""

    def __init__(self, table: Table, name: str, where: str) -> None:
        self.where = f'{where}: column "{name}"'
        known: list[str] = table.column_names
        if name not in known:
            some = ", ".join(known[:8]) + ", …" * (len(known) > 8)
            near = did_you_mean(name, known) or f"; it has {some}"
            raise SettingError(f'{where}: the table has no column "{name}"{near}')
        self.name, self.values = name, decode_column(table.column(name))

    def latest(self, count: int) -> Mask:
        """The `count` rows with the highest values: dates, times, numbers, or text that is a date in ISO 8601.

        Rows of the same time stay in their order. Raises DataError where a time is missing, and for other values.
        """
        if value_kind(self.values.type) == "text":
            days, seconds, missing = as_days(self.values, self.name, first_row=0, lenient=False)
            order = np.lexsort((seconds, days))
        else:
            order, missing = self._sorted()
        if missing is not None and (absent := int(missing.sum())):
            raise DataError(
                f"{self.where} is missing in {pluralize(absent, 'row')} (the first: row {missing.argmax()}); "
                "expected a time in each: fill them, or drop these rows"
            )
        chosen = np.zeros(len(order), np.bool_)
        chosen[order[len(order) - count :]] = True
        return chosen

    def _sorted(self) -> tuple[Rows, Mask]:
        """The rows in the order of their values, and where these are missing."""
        import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
        import pyarrow.compute as pc  # pyright: ignore[reportMissingTypeStubs] -- it has none

        compute: Any = pc
        try:
            order = compute.sort_indices(self.values).to_numpy()
        except pa.ArrowException as error:
            raise DataError(f"{self.where} holds {self.values.type}; expected dates, times or numbers") from error
        return order, compute.is_null(self.values, nan_is_null=True).to_numpy()

    def distinct(self) -> tuple[Rows, list[Any]]:
        """For each row the number of its value, and the values in the order in which they come; None for missing."""
        import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

        try:
            chunks = self.values.dictionary_encode(null_encoding="encode").chunks  # which share their dictionary
        except pa.ArrowException as error:
            raise DataError(f"{self.where} holds {self.values.type}; expected text or whole numbers") from error
        codes = [chunk.indices.to_numpy() for chunk in chunks]
        return np.concatenate(codes, dtype=np.int64), chunks[0].dictionary.to_pylist()

    def groups(self) -> Rows:
        """For each row the number of its group."""
        codes, values = self.distinct()
        if len(values) < 2:
            raise DataError(f"{self.where} is {values[0]!r} in every row; expected at least two groups")
        return codes

    def marked(self) -> list[Rows]:
        """The rows that the values mark as training, validation and test."""
        codes, values = self.distinct()
        sides: list[int] = []
        for code, value in enumerate(values):
            text = str(value).strip().lower().removesuffix(".0")
            if text not in _MARKS:
                found = "missing" if value is None else repr(value)
                near = did_you_mean(text, [mark for mark in _MARKS if mark.isalpha()])
                raise DataError(
                    f"{self.where} is {found} in row {(codes == code).argmax()}; expected train, valid or test, "
                    f"or true or 1 for validation{near}"
                )
            sides.append(_MARKS[text])
        side = np.array(sides, np.int64)[codes]
        rows = [np.flatnonzero(side == number) for number in range(3)]
        for number, purpose, marks in ((0, "training", "train, false or 0"), (1, "validation", "valid, true or 1")):
            if not len(rows[number]):
                raise DataError(f"{self.where} has no row for {purpose}; expected at least one ({marks})")
        return rows
