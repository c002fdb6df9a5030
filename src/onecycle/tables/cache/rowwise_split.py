"""The side of each row of a table that is read piece by piece: training, validation or test."""

from collections.abc import Sequence
from hashlib import blake2b
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from onecycle.core.checks import check_int
from onecycle.core.device import derived_seed
from onecycle.errors import DataError, SettingError, did_you_mean
from onecycle.tables.spec import parse_split
from onecycle.tables.split import SPLIT_MARKS as MARKS
from onecycle.tables.values import dictionary_codes, value_texts

SIDES = ("train", "valid", "test")
Places: TypeAlias = np.ndarray[Any, np.dtype[np.int8]]
_SPLIT = 3  # what a derived seed is for
_CHUNK = 65_536  # rows whose random numbers come from one generator
_CAN = "auto, random, group:COLUMN or column:COLUMN"


class RowwiseSplit:
    """Decides row by row, so that it never needs the whole table; the same however the rows come in pieces.

    - "random", "auto": each row validates with the probability `valid`, by `seed`.
    - "group:COLUMN": each group does, so that its rows stay together. Missing values are a group of their own.
    - "column:COLUMN": the column says train, valid or test, as for a table in memory.

    Raises SettingError for other ways, which need the table in memory, and for settings that cannot be used.
    """

    def __init__(self, how: Any, valid: Any, seed: int, names: Sequence[str]) -> None:
        way, self.column = parse_split(how) if isinstance(how, str) else ("given rows", None)
        self.where, self.seed, self._way = f'split "{how}"', check_int(seed, "seed", least=0), way
        if way not in ("auto", "random", "group", "column"):
            shown = f'split "{how}"' if isinstance(how, str) else "a split by given rows"
            raise SettingError(
                f"{shown} needs the table in memory, but it is larger than memory_limit; raise that, or use {_CAN}"
            )
        if way != "column" and (isinstance(valid, bool) or not isinstance(valid, Real) or not 0 < float(valid) < 1):
            raise SettingError(
                f"valid is {valid!r}; expected a share between 0 and 1, since the table is larger than memory_limit"
            )
        self.share = float(valid) if way != "column" else 0.0
        if self.column is not None and self.column not in names:
            some = ", ".join(names[:8]) + ", …" * (len(names) > 8)
            near = did_you_mean(self.column, names) or f"; it has {some}"
            raise SettingError(f'{self.where}: the table has no column "{self.column}"{near}')

    def of(self, table: Any, first_row: int) -> Places:
        """The place in SIDES of each row of a Table that begins at `first_row`. Raises DataError for bad marks."""
        if self.column is None:
            return self._random(first_row, table.num_rows)
        decide = self._mark if self._way == "column" else self._group
        found, done = np.empty(table.num_rows, np.int8), 0
        for values, places in dictionary_codes(table.column(self.column)):
            texts = [*self._texts(values), None]  # the last is for the place of null, -1
            found[done : done + len(places)] = np.array([decide(text) for text in texts], np.int8)[places]
            if (bad := found[done : done + len(places)] < 0).any():
                row = int(bad.argmax())
                self._refuse(values[int(places[row])].as_py() if places[row] >= 0 else None, first_row + done + row)
            done += len(places)
        return found

    def check(self, counts: Sequence[int]) -> None:
        """Raises DataError where a side that is needed has no rows; `counts` are those of SIDES."""
        for count, side in zip(counts[:2], ("train on", "validate"), strict=True):
            if not count:
                what = f'{self.where}: column "{self.column}"' if self.column else self.where
                mend = "mark some" if self._way == "column" else "try another share or seed"
                raise DataError(f"{what} leaves no row to {side}; expected at least one on each side: {mend}")

    def _random(self, first_row: int, rows: int) -> Places:
        chunks = range(first_row // _CHUNK, -(-(first_row + rows) // _CHUNK))
        drawn = [np.random.default_rng(derived_seed(self.seed, _SPLIT, chunk)).random(_CHUNK) for chunk in chunks]
        start = first_row % _CHUNK
        return (np.concatenate(drawn)[start : start + rows] < self.share).astype(np.int8)

    def _texts(self, values: Any) -> list[str | None]:
        try:
            return value_texts(values).to_pylist()
        except TypeError as error:
            raise DataError(f'{self.where}: column "{self.column}" holds {error}; expected text or numbers') from None

    def _group(self, text: str | None) -> int:
        written = b"" if text is None else b"=" + text.encode("utf-8", "surrogatepass")
        drawn = blake2b(written, digest_size=8, key=derived_seed(self.seed, _SPLIT).to_bytes(8, "little")).digest()
        return int(int.from_bytes(drawn, "little") < self.share * 2**64)

    def _mark(self, text: str | None) -> int:
        return MARKS.get(str(text).strip().lower().removesuffix(".0"), -1)

    def _refuse(self, value: Any, row: int) -> None:
        near = did_you_mean(str(value), [mark for mark in MARKS if mark.isalpha()])
        raise DataError(
            f'{self.where}: column "{self.column}" is {"missing" if value is None else repr(value)} in row {row}; '
            f"expected train, valid or test, or true or 1 for validation{near}"
        )
