"""The set of each row of a table that is read chunk by chunk: training, validation or test."""

from collections.abc import Sequence
from hashlib import blake2b
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from onecycle.core.checks import check_int
from onecycle.core.choices import SetName
from onecycle.core.device import derived_seed
from onecycle.errors import DataError, SettingError, did_you_mean
from onecycle.tables.spec import TableSpec, parse_split
from onecycle.tables.split import SPLIT_MARKS
from onecycle.tables.values import dictionary_codes, value_texts

SETS: tuple[SetName, ...] = ("train", "valid", "test")
SetCodes: TypeAlias = np.ndarray[Any, np.dtype[np.int8]]  # the index in SETS of each row
_SPLIT = 3  # purpose of a derived seed
_BLOCK = 65_536  # rows whose random numbers come from one generator
_POSSIBLE = "auto, random, group:COLUMN or column:COLUMN"


class RowwiseSplit:
    """Assigns each row to a set without the rest of the table, so that the result does not depend on the chunks.

    - "random", "auto": each row validates with the probability `spec.valid`, by `spec.seed`.
    - "group:COLUMN": each group does, so that its rows stay together. Missing values are a group of their own.
    - "column:COLUMN": the column says train, valid or test, as for a table in memory.

    Raises SettingError for other splits, which need the table in memory, and for settings that cannot be used.
    """

    def __init__(self, spec: TableSpec, names: Sequence[str]) -> None:
        split, valid = spec.split, spec.valid
        self._kind, self._column = parse_split(split) if isinstance(split, str) else ("rows", None)
        self._where, self.seed = f'split "{split}"', check_int(spec.seed, "seed", least=0)
        if self._kind not in ("auto", "random", "group", "column"):
            shown = self._where if isinstance(split, str) else "a split by given rows"
            raise SettingError(
                f"{shown} needs the table in memory, but it is larger than memory_limit; raise that, or use {_POSSIBLE}"
            )
        by_mark = self._kind == "column"
        if not by_mark and (isinstance(valid, bool) or not isinstance(valid, Real) or not 0 < float(valid) < 1):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise SettingError(
                f"valid is {valid!r}; expected a fraction between 0 and 1, since the table is larger than memory_limit"
            )
        self.fraction = 0.0 if by_mark else float(valid)
        if self._column is not None and self._column not in names:
            some = ", ".join(names[:8]) + ", …" * (len(names) > 8)
            near = did_you_mean(self._column, names) or f"; it has {some}"
            raise SettingError(f'{self._where}: the table has no column "{self._column}"{near}')

    def assign(self, table: Any, first_row: int) -> SetCodes:
        """Return the set of each row of a Table that begins at row `first_row`. Raises DataError for unknown marks."""
        if self._column is None:
            return self._random(first_row, table.num_rows)
        of_text = self._set_of_mark if self._kind == "column" else self._set_of_group
        sets, done = np.empty(table.num_rows, np.int8), 0
        for values, codes in dictionary_codes(table.column(self._column)):
            texts = [*self._texts(values), None]  # the last is for null, whose code is -1
            chunk = np.array([of_text(text) for text in texts], np.int8)[codes]
            if (chunk < 0).any():
                row = int((chunk < 0).argmax())
                value = values[int(codes[row])].as_py() if codes[row] >= 0 else None
                raise self._unknown_mark(value, first_row + done + row)
            sets[done : done + len(codes)] = chunk
            done += len(codes)
        return sets

    def check_not_empty(self, counts: Sequence[int]) -> None:
        """Raise DataError if no row is to train on or to validate; `counts` are the rows in each of SETS."""
        for count, purpose in zip(counts[:2], ("train on", "validate"), strict=True):
            if not count:
                split = f'{self._where}: column "{self._column}"' if self._column else self._where
                advice = "mark some" if self._kind == "column" else "try another fraction or seed"
                raise DataError(f"{split} leaves no row to {purpose}; expected at least one in each set: {advice}")

    def _random(self, first_row: int, rows: int) -> SetCodes:
        blocks = range(first_row // _BLOCK, -(-(first_row + rows) // _BLOCK))
        numbers = [np.random.default_rng(derived_seed(self.seed, _SPLIT, block)).random(_BLOCK) for block in blocks]
        start = first_row % _BLOCK
        return (np.concatenate(numbers)[start : start + rows] < self.fraction).astype(np.int8)

    def _texts(self, values: Any) -> list[str | None]:
        try:
            return value_texts(values).to_pylist()
        except TypeError as error:
            raise DataError(
                f'{self._where}: column "{self._column}" holds {error}; expected text or numbers'
            ) from error

    def _set_of_group(self, text: str | None) -> int:
        content = b"" if text is None else b"=" + text.encode("utf-8", "surrogatepass")
        digest = blake2b(content, digest_size=8, key=derived_seed(self.seed, _SPLIT).to_bytes(8, "little")).digest()
        return int(int.from_bytes(digest, "little") < self.fraction * 2**64)

    def _set_of_mark(self, text: str | None) -> int:
        return SPLIT_MARKS.get(str(text).strip().lower().removesuffix(".0"), -1)

    def _unknown_mark(self, value: Any, row: int) -> DataError:
        near = did_you_mean(str(value), [mark for mark in SPLIT_MARKS if mark.isalpha()])
        return DataError(
            f'{self._where}: column "{self._column}" is {"missing" if value is None else repr(value)} in row {row}; '
            f"expected train, valid or test, or true or 1 for validation{near}"
        )
