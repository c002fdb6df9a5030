"""TableSpec: the target, the features and the split of a table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onecycle.core.choices import ColumnKind, Task
from onecycle.errors import SettingError, did_you_mean

SPLIT_FORMS = ("auto", "random", "stratified", "time:COLUMN", "group:COLUMN", "column:COLUMN")
SPLIT_SYNTAX = f"{', '.join(SPLIT_FORMS[:-1])} or {SPLIT_FORMS[-1]}"
SPLIT_METHODS = {form.partition(":")[0]: form.endswith(":COLUMN") for form in SPLIT_FORMS}  # whether it takes a column


@dataclass(frozen=True)
class TableSpec:
    """The target, the features and the split of a table, in memory or on the disk.

    Attributes:
        target: Name of the column to predict; several for a multilabel or multi-output target.
        task: "classes", "regression" or "multilabel"; None to infer it from the target.
        kinds: What columns are ("number", "category", "date", "dropped"), if the guess is wrong. A target can only be a
            category: its classes are the texts exactly as written, "NA" and "None" too.
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
    def text_columns(self) -> list[str]:
        """Columns that are read as text, exactly as written ("01" is not 1), from a file without types such as CSV."""
        return [name for name, kind in self.kinds.items() if kind == "category"]

    @property
    def labels_as_written(self) -> bool:
        """Whether the target is classes whose texts count exactly as written. SettingError for any other kind of it."""
        kinds = {name: self.kinds[name] for name in self.targets if name in self.kinds}
        for name, kind in kinds.items():
            if kind != "category" or len(self.targets) > 1 or self.task not in (None, "classes"):
                raise SettingError(
                    f'kinds sets "{name}", which is predicted, to {kind!r}; expected "category", of a lone target of '
                    "classes: task says what else a target is"
                )
        return bool(kinds)

    def non_features(self, columns: Sequence[str]) -> list[str]:
        """Return the columns, targets aside, that are not features: those in `drop`, and the one that marks the split.

        Raises SettingError if `drop` names a target, or a column that is not among `columns`.
        """
        for name in self.dropped:
            if name in self.targets:
                raise SettingError(f'drop names "{name}", which is predicted; remove it from drop or from the target')
            if name not in columns:
                raise SettingError(f'drop names "{name}", but there is no such column{column_hint(name, columns)}')
        marker = excluded_feature(self.split)
        return [*dict.fromkeys([*self.dropped, *([marker] if marker else [])])]


def parse_split(text: str) -> tuple[str, str | None]:
    """Return the method and the column of a split: ("time", "date") for "time:date", ("random", None) for "random".

    Raises SettingError for an unknown method, for a method without the column it needs, and for a column after a
    method that takes none.
    """
    method, colon, column = text.partition(":")
    if method not in SPLIT_METHODS:
        near = did_you_mean(method, SPLIT_METHODS)
        raise SettingError(f'unknown split "{text}"; expected {SPLIT_SYNTAX}{near}')
    if SPLIT_METHODS[method] and not column:
        raise SettingError(f'split "{text}" names no column; expected {method}:COLUMN')
    if not SPLIT_METHODS[method] and colon:
        raise SettingError(f'split "{text}": {method} takes no column; expected {SPLIT_SYNTAX}')
    return method, column or None


def excluded_feature(split: Any) -> str | None:
    """Return the column that must not be a feature under this split, or None.

    That is the column of "column:", which says nothing about a row, and of "group:", whose values in the validation
    rows never occur in training. The column of "time:" stays a feature.
    """
    method, column = parse_split(split) if isinstance(split, str) else ("rows", None)
    return column if method in ("column", "group") else None


def column_hint(name: str, columns: Sequence[str]) -> str:
    """Return the end of an error message about an unknown column: the column that was meant, or those there are."""
    some = ", ".join(columns[:10]) + ", …" * (len(columns) > 10)
    return did_you_mean(name, columns) or f"; there are {some}"


def _column_names(names: Any, setting: str) -> list[str]:
    as_list: list[Any] = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] -- of whatever
    if not all(isinstance(name, str) for name in as_list):
        raise SettingError(f"{setting} is {names!r}; expected the name of a column, or a list of names")
    return as_list
