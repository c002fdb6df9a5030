"""Columns of text that were meant to be numbers: all but a few of their cells are."""

from typing import Any

_SHARE = 0.9  # of the cells, and of the distinct values, that are numbers
_ODD = 10  # distinct values that are none, at most
_ENOUGH = 1000  # cells among which distinct numbers are looked for at a time
_SLICES, _SLICE = 16, 64  # of a column, that are looked at first


class NumericTextCounter:
    """Counts the numbers in a column of a CSV file, and the cells that are none.

    The column is *mostly numbers* where at least 90% of its cells that are not missing are numbers, at least 90% of its
    distinct values are, and at most 10 distinct values are not: these are taken for slips then, not for categories.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = f"^(?:{pattern})$"
        self._rows = self._numbers = self._cells = 0
        self._values: set[str] = set()
        self.odd: dict[str, int] = {}  # the first distinct cells that are no numbers, and the row of each

    def add(self, column: Any) -> None:
        """Count the next cells, a pyarrow ChunkedArray of text or numbers."""
        import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
        import pyarrow.compute  # pyright: ignore[reportMissingTypeStubs] -- it has none

        pc: Any = pyarrow.compute
        if len(self.odd) > _ODD:  # more cannot change the answer
            return
        numbers = column
        if pa.types.is_string(column.type):
            fits = pc.match_substring_regex(column, self._pattern)
            numbers, others = column.filter(fits), column.filter(pc.invert(fits))
            for value in others.unique().slice(0, _ODD + 1):
                if value.as_py() not in self.odd:
                    self.odd[value.as_py()] = self._rows + pc.index(column, value).as_py()
        self._numbers += len(numbers) - numbers.null_count
        self._cells += len(column) - column.null_count
        self._rows += len(column)
        if len(self._values) < _ENOUGH:
            self._values.update(map(str, numbers.slice(0, _ENOUGH).drop_null().unique().to_pylist()))

    def maybe(self, column: Any) -> bool:
        """Whether half of a sample of `column` are numbers: no column that is mostly numbers has fewer."""
        import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none
        import pyarrow.compute  # pyright: ignore[reportMissingTypeStubs] -- it has none

        pc: Any = pyarrow.compute
        step = max(_SLICE, len(column) // _SLICES)
        slices = [column.slice(start, _SLICE) for start in range(0, len(column), step)]
        sample = pa.concat_arrays([chunk for part in slices for chunk in part.chunks]).drop_null()
        return 2 * (pc.sum(pc.match_substring_regex(sample, self._pattern)).as_py() or 0) >= len(sample)

    @property
    def mostly(self) -> bool:
        """Whether the column is mostly numbers, and has other cells."""
        values = len(self._values) + len(self.odd)
        few = 0 < len(self.odd) <= _ODD and len(self._values) >= _SHARE * values
        return few and self._numbers >= _SHARE * self._cells

    @property
    def share(self) -> str:
        """How many of the cells are numbers, in words."""
        return f"{self._numbers:,} of its {self._cells:,} cells"
