"""Target: what is predicted, and how its columns become the numbers that a model is trained on."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onecycle.errors import DataError
from onecycle.tables.categories import FittedCategory
from onecycle.tables.encoder_json import JsonReader, damaged
from onecycle.tables.features import check_columns
from onecycle.tables.target_stats import (
    TASKS,
    TargetStats,
    check_present,
    check_task,
    check_zero_or_one,
    collect_target_stats,
    finite_numbers,
    infer_target,
    labels_of,
    missing_values,
)
from onecycle.tables.values import Array, column_slices, number_text, update_all

if TYPE_CHECKING:
    import torch

_FORMAT = 1
_LARGEST = {int: 2**63, float: math.inf}  # of a class; NaN is not below it
_PIECE = 262_144  # rows


class Target:
    """What is predicted: one of several classes, numbers, or any of several labels.

    `task` is "classes", "regression" or "multilabel"; `classes` are the classes or labels in the order of the model's
    outputs (plain Python values; None for a regression), `outputs` is how many outputs a model needs. `mean` and `std`
    are a regression's, of each column.
    """

    def __init__(
        self,
        task: str,
        names: Sequence[str],
        classes: Sequence[Any] | None = None,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        lists: bool = False,
    ) -> None:
        self.task, self.names, self.lists = task, list(names), lists
        self.classes = None if classes is None else list(classes)
        self.mean, self.std = list(mean), list(std)
        self._units: dict[torch.device, torch.Tensor] = {}  # both, on each device that they were wanted on
        self.outputs = len(self.names) if self.classes is None else len(self.classes)
        form, texts = _as_texts(self.classes or [])
        self._coder = FittedCategory(self.names[0], form, texts, flag=False)

    @classmethod
    def fit(cls, table: Any, names: Sequence[str], task: str | None = None) -> "Target":
        """What the columns `names` of a Table, the training rows, are as a target.

        Without a `task`: one column of text, booleans, Arrow's dictionaries, or of at most 20 different whole numbers
        that occur five times or more on average (two different ones: however often) is classes; any other column of
        numbers is a regression; several columns are multilabel where they are all 0 and 1, else a regression; a column
        of lists is multilabel. Raises SettingError for an unknown column or task, DataError for a target that nothing
        can be learned from: missing in some rows, the same in all, infinite, or of a type that does not fit.
        """
        return cls.fit_stream([table], names, task)

    @classmethod
    def fit_stream(
        cls, batches: Iterable[Any] | Callable[[], Iterable[Any]], names: Sequence[str], task: str | None = None
    ) -> "Target":
        """As `fit`, of training rows that come as RecordBatches or Tables, one at a time."""
        task, stats = check_task(task, names), list[TargetStats]()
        for batch in batches() if callable(batches) else batches:
            stats = stats or collect_target_stats(batch.schema, names, task)
            update_all(stats, batch)
        return cls(**infer_target(stats, task))

    def transform(self, table: Any, part: str = "validation", first_row: int = 0) -> Array:
        """The target's numbers of a Table or RecordBatch of n rows.

        Classes: their places among `classes`, int64 (n,). Regression: standardised, float32 (n,), or (n, outputs) of
        several columns. Multilabel: 0 and 1, float32 (n, outputs). Raises DataError for missing values and for labels
        that the training rows lack; `part` is what these rows are called in its messages, `first_row` the number of the
        first of them.
        """
        check_columns(table, self.names)
        y = np.zeros((table.num_rows, self.outputs), np.float32)
        y = np.zeros(table.num_rows, np.int64) if self.task == "classes" else y
        for place, name in enumerate(self.names):
            done = 0
            for piece in column_slices(table, name, _PIECE):
                self._write(piece, place, first_row + done, part, y[done : done + len(piece)])
                done += len(piece)
        return y[:, 0] if self.task == "regression" and self.outputs == 1 else y

    def inverse_transform(self, values: "torch.Tensor") -> "torch.Tensor":
        """Standardised values of a regression, (n,) or (n, outputs), in the target's own units; others as they are.

        Computed in float64, without waiting for the values' device, but for MPS, which has no float64: there on the
        CPU. The result has the values' dtype, but float64 where float32 would be coarser than a thousandth of the
        target's deviation.
        """
        if self.task != "regression":
            return values
        import torch

        device = torch.device("cpu") if values.device.type == "mps" else values.device
        if device not in self._units:  # waits for the device, once
            self._units[device] = torch.tensor([self.mean, self.std], dtype=torch.float64, device=device)
        mean, std = self._units[device] if values.ndim > 1 else self._units[device][:, 0]
        found = values.detach().to(device, torch.float64) * std + mean
        coarse = any(abs(m) * 1e-7 > s * 1e-3 for m, s in zip(self.mean, self.std, strict=True))
        large = any(abs(m) + 1e3 * s > 1e38 for m, s in zip(self.mean, self.std, strict=True))
        return found if coarse or large else found.to(values.device, values.dtype)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON, which `from_dict` reads."""
        return {
            "format": _FORMAT,
            "task": self.task,
            "names": self.names,
            "classes": self.classes,
            "mean": self.mean,
            "std": self.std,
            "lists": self.lists,
        }

    @classmethod
    def from_dict(cls, written: Any) -> "Target":
        """The Target that `to_dict` described. Raises DataError for what it did not write."""
        found = JsonReader(written, "target")
        found.format(_FORMAT)
        task, names, lists = found.text("task", TASKS), found.texts("names"), found.flag("lists")
        mean, std = found.numbers("mean"), found.numbers("std", above=0)
        regression = task == "regression"
        if not names or len(mean) != len(std) or len(mean) != (len(names) if regression else 0):
            raise damaged("target.names", names, "the columns that mean and std are of")
        classes = None if regression else found.items("classes")
        if classes is not None:
            sorts = {type(value) for value in classes}
            numbers = sorts <= {int, float} and all(abs(value) < _LARGEST[type(value)] for value in classes)
            plain = sorts <= {str} or sorts <= {bool} or numbers
            if not plain or len(set(classes)) < len(classes) or len(classes) < (2 if task == "classes" else 1):
                raise damaged("target.classes", classes, "different texts, numbers, or true and false")
        several = task == "multilabel" and not lists
        if (len(names) > 1 and not (regression or several)) or (several and classes != names):
            raise damaged("target.names", names, f"what {task} is predicted of")
        return cls(task, names, classes, mean, std, lists)

    def _write(self, column: Any, place: int, first_row: int, part: str, out: Array) -> None:
        """Write a piece of the column number `place` to its rows of the result."""
        name = self.names[place]
        if self.task == "classes":
            out[:] = self._codes(column, first_row + np.arange(len(column)), part)
        elif self.lists:
            check_present(name, column.is_null().to_numpy(), first_row, part)
            labels, rows = labels_of(column, name, first_row)
            out[rows, self._codes(labels, first_row + rows, part)] = 1
        else:
            x, absent = finite_numbers(column, name, first_row)
            check_present(name, absent, first_row, part)
            if self.task == "multilabel":
                check_zero_or_one(x, name, first_row)
                out[:, place] = x
            else:
                out[:, place] = (x - self.mean[place]) / self.std[place]

    def _codes(self, values: Any, rows: Array, part: str) -> Array:
        """The places of values among the classes; `rows` are the numbers of the rows that they are in."""
        codes = np.empty(len(values), np.int64)
        self._coder.write(values, 0, [codes])
        if (codes == 0).any():
            at = int((codes == 0).argmax())
            check_present(self.names[0], missing_values(values), int(rows[0]), part)
            known = ", ".join(map(repr, (self.classes or [])[:10])) + (", …" if self.outputs > 10 else "")
            raise DataError(
                f'row {rows[at]}: target "{self.names[0]}" is {values[at].as_py()!r}, which {part} has and training '
                f"lacks (there: {known}); drop such rows, or split so that training has each class"
            )
        return codes - 1


def class_weights(y: Array, classes: int) -> Array:
    """Weights that make all classes count the same, float32 (classes,): n / (classes * count).

    `y` are the places of n rows among the classes; a class that none is of has the weight 1.
    """
    counts = np.bincount(y, minlength=classes)
    return np.where(counts, len(y) / (classes * np.maximum(counts, 1)), 1).astype(np.float32)


def _as_texts(classes: Sequence[Any]) -> tuple[str, tuple[str, ...]]:
    """The form of classes as categories, and their texts."""
    if all(isinstance(value, str) for value in classes):
        return "text", tuple(classes)
    form = "bool" if all(isinstance(value, bool) for value in classes) else "number"
    return form, tuple(str(number_text(value)) for value in classes)
