"""TableSpec: what is predicted from which columns of a table, and which rows validate."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onecycle.core.choices import ColumnKind, Task
from onecycle.errors import SettingError


@dataclass(frozen=True)
class TableSpec:
    """What is predicted from which columns, and which rows validate: the same for files, memory, stream and cache.

    Attributes:
        target: Name of the column to predict; several for a multilabel or multi-output target.
        task: "classes", "regression" or "multilabel"; None to infer it from the target.
        kinds: What columns are ("number", "category", "date", "dropped"), if the guess is wrong.
        drop: Names of columns to leave out.
        split: How the validation rows are chosen, see `split_rows`.
        valid: Fraction of the rows that validates, or a number of rows.
        seed: Seed of a random split.
    """

    target: str | Sequence[str]
    task: Task | None = None
    kinds: Mapping[str, ColumnKind] = field(default_factory=dict[str, ColumnKind])
    drop: str | Sequence[str] = ()
    split: Any = "auto"
    valid: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.kinds, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise SettingError(f'kinds is {self.kinds!r}; expected a dict of names: kinds={{"zip": "category"}}')

    @property
    def targets(self) -> list[str]:
        """Names of the columns to predict. Raises SettingError if they are not text."""
        return _column_names(self.target, "the target")

    @property
    def dropped(self) -> list[str]:
        """Names of the columns to leave out. Raises SettingError if they are not text."""
        return _column_names(self.drop, "drop")

    @property
    def as_written(self) -> list[str]:
        """Columns of a CSV file that are read as text, exactly as written ("01" is not 1)."""
        return [name for name, kind in self.kinds.items() if kind == "category"]


def _column_names(given: Any, what: str) -> list[str]:
    names: list[Any] = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] -- of whatever
    if not all(isinstance(name, str) for name in names):
        raise SettingError(f"{what} is {given!r}; expected the name of a column, or a list of names")
    return names
