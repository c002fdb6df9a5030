"""Target: the columns that are predicted, and the numbers that a model is trained on."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onecycle.core.choices import Task
from onecycle.errors import DataError
from onecycle.tables.categories import CategoryEncoder, read_rule
from onecycle.tables.features import check_columns
from onecycle.tables.json_reader import JsonReader, damaged
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
from onecycle.tables.values import AS_WRITTEN, Array, TextRule, column_slices, number_text, update_all

if TYPE_CHECKING:
    import torch

_FORMAT = 1
_LARGEST_CLASS = {int: 2**64, float: math.inf}  # NaN is not below it
_CHUNK_ROWS = 262_144  # rows
_SMALLEST_STD = 1e-30  # of numbers that float32 holds to seven digits


class Target:
    """The target of a table: one of several classes, numbers, or any of several labels.

    Attributes:
        task: "classes", "regression" or "multilabel".
        names: Names of the columns that are predicted.
        classes: The classes or labels, plain Python values in the order of the model's outputs; None for a regression.
        mean: Mean of each column of a regression in the training rows.
        std: Standard deviation of each column of a regression in the training rows.
        lists: Whether the labels are in one column of lists.
        outputs: Number of outputs that a model needs.
        rule: Which texts are the same class, or missing.
    """

    def __init__(
        self,
        task: Task,
        names: Sequence[str],
        classes: Sequence[Any] | None = None,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        lists: bool = False,
        rule: TextRule = AS_WRITTEN,
    ) -> None:
        self.task, self.names, self.lists, self.rule = task, list(names), lists, rule
        self.classes = None if classes is None else list(classes)
        self.mean, self.std = list(mean), list(std)
        self.outputs = len(self.names) if self.classes is None else len(self.classes)
        self._mean_std_on: dict[torch.device, torch.Tensor] = {}
        self._encoder = _class_encoder(self.names[0], self.classes or [], rule)

    @classmethod
    def fit(
        cls, table: Any, names: Sequence[str], task: str | None = None, labels_as_written: bool = False
    ) -> "Target":
        """Return what some columns of the training rows are as a target.

        Args:
            table: The training rows, a pyarrow Table.
            names: Names of the columns to predict.
            task: "classes", "regression" or "multilabel". By default, one column of text, booleans, Arrow dictionaries,
                or of at most 20 different whole numbers that occur five times or more on average (two different ones:
                however often) is classes; any other column of numbers is a regression; several columns are multilabel
                if they are all 0 and 1, else a regression; a column of lists is multilabel.
            labels_as_written: Whether the target is classes of texts as they are written: "NA" is a class then, and not
                a missing value.

        Raises:
            SettingError: For an unknown column or task.
            DataError: For a target that nothing can be learned from: missing in some rows, the same in all, infinite,
                or of a type that does not fit the task.
        """
        return cls.fit_stream([table], names, task, labels_as_written)

    @classmethod
    def fit_stream(
        cls, batches: Iterable[Any], names: Sequence[str], task: str | None = None, labels_as_written: bool = False
    ) -> "Target":
        """Like `fit`, of training rows that come as RecordBatches or Tables, one at a time."""
        known_task, stats = check_task("classes" if labels_as_written else task, names), list[TargetStats]()
        for batch in batches:
            stats = stats or collect_target_stats(batch.schema, names, known_task, labels_as_written)
            update_all(stats, batch)
        return cls(**infer_target(stats, known_task))

    def transform(self, table: Any, set_name: str = "validation", first_row: int = 0) -> Array:
        """Return the target of a table as numbers.

        Args:
            table: A pyarrow Table or RecordBatch of n rows.
            set_name: Name of the set that these rows are, for error messages.
            first_row: Number of the first row, for error messages.

        Returns:
            Of classes the index among `classes`, int64 (n,). Of a regression the standardised values, float32 (n,), or
            (n, outputs) of several columns. Of labels 0 and 1, float32 (n, outputs).

        Raises:
            DataError: For missing values, and for classes or labels that the training rows lack.
        """
        check_columns(table, self.names)
        y = np.zeros((table.num_rows, self.outputs), np.float32)
        y = np.zeros(table.num_rows, np.int64) if self.task == "classes" else y
        for i, name in enumerate(self.names):
            done = 0
            for chunk in column_slices(table, name, _CHUNK_ROWS):
                self._write(chunk, i, first_row + done, set_name, y[done : done + len(chunk)])
                done += len(chunk)
        return y[:, 0] if self.task == "regression" and self.outputs == 1 else y

    def inverse_transform(self, values: "torch.Tensor") -> "torch.Tensor":
        """Return standardised values of a regression, (n,) or (n, outputs), in the target's own units.

        Values of other tasks are returned as they are. Computed in float64 without waiting for the values' device, but
        on the CPU for MPS, which has no float64. The result has the values' dtype, but float64 if float32 would be
        coarser than a thousandth of the target's standard deviation, or has no numbers as large or as small.
        """
        if self.task != "regression":
            return values
        import torch

        device = torch.device("cpu") if values.device.type == "mps" else values.device
        if device not in self._mean_std_on:  # waits for the device, once
            self._mean_std_on[device] = torch.tensor([self.mean, self.std], dtype=torch.float64, device=device)
        mean, std = self._mean_std_on[device] if values.ndim > 1 else self._mean_std_on[device][:, 0]
        result = values.detach().to(device, torch.float64) * std + mean
        coarse = any(abs(m) * 1e-7 > s * 1e-3 for m, s in zip(self.mean, self.std, strict=True))
        far = any(abs(m) + 1e3 * s > 1e38 or s < _SMALLEST_STD for m, s in zip(self.mean, self.std, strict=True))
        return result if coarse or far else result.to(values.device, values.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON, which `from_dict` reads."""
        keys = ("task", "names", "classes", "mean", "std", "lists")
        rule = {"trimmed": self.rule.trimmed, "markers": list(self.rule.markers)}
        return {"format": _FORMAT, **{key: getattr(self, key) for key in keys}, "rule": rule}

    @classmethod
    def from_dict(cls, written: Any) -> "Target":
        """Return the Target that `to_dict` described. Raises DataError for anything else."""
        description = JsonReader(written, "target")
        description.check_format(_FORMAT)
        task, names, lists = description.choice("task", TASKS), description.texts("names"), description.flag("lists")
        mean, std = description.numbers("mean"), description.numbers("std", above=0)
        regression = task == "regression"
        if not names or len(mean) != len(std) or len(mean) != (len(names) if regression else 0):
            raise damaged("target.names", names, "the columns that mean and std are of")
        classes = None if regression else description.items("classes")
        if classes is not None:
            types = {type(value) for value in classes}
            numbers = types <= {int, float} and all(abs(value) < _LARGEST_CLASS[type(value)] for value in classes)
            plain = types <= {str} or types <= {bool} or numbers
            if not plain or len(set(classes)) < len(classes) or len(classes) < (2 if task == "classes" else 1):
                raise damaged("target.classes", classes, "different texts, numbers, or true and false")
        one_column_a_label = task == "multilabel" and not lists
        if (len(names) > 1 and not (regression or one_column_a_label)) or (one_column_a_label and classes != names):
            raise damaged("target.names", names, f"what {task} is predicted of")
        return cls(task, names, classes, mean, std, lists, read_rule(description, classes or []))

    def _write(self, column: Any, i: int, first_row: int, set_name: str, out: Array) -> None:
        """Write a chunk of column `i` to its rows of the result."""
        name = self.names[i]
        if self.task == "classes":
            out[:] = self._codes(column, first_row + np.arange(len(column)), set_name)
        elif self.lists:
            check_present(name, column.is_null().to_numpy(), first_row, set_name)
            labels, rows = labels_of(column, name, first_row)
            out[rows, self._codes(labels, first_row + rows, set_name)] = 1
        else:
            x, missing = finite_numbers(column, name, first_row)
            check_present(name, missing, first_row, set_name)
            if self.task == "multilabel":
                check_zero_or_one(x, name, first_row)
                out[:, i] = x
            else:
                out[:, i] = (x - self.mean[i]) / self.std[i]

    def _codes(self, values: Any, rows: Array, set_name: str) -> Array:
        """Return the index of each value among the classes; `rows` are the numbers of the values' rows."""
        codes = np.empty(len(values), np.int64)
        self._encoder.write(values, 0, [codes])  # 0 is a class that training lacks
        if (codes == 0).any():
            i = int((codes == 0).argmax())
            check_present(self.names[0], missing_values(values, self.rule), int(rows[0]), set_name)
            known = ", ".join(map(repr, (self.classes or [])[:10])) + (", …" if self.outputs > 10 else "")
            raise DataError(
                f'row {rows[i]}: target "{self.names[0]}" is {values[i].as_py()!r}, which {set_name} has and training '
                f"lacks (there: {known}); drop such rows, or split so that training has each class"
            )
        return codes - 1


def class_weights(y: Array, classes: int) -> Array:
    """Return weights by which all classes count the same, float32 (classes,): n / (classes * rows of the class).

    `y` (n,) are the indices of the rows' classes; a class without rows has the weight 1.
    """
    counts = np.bincount(y, minlength=classes)
    return np.where(counts, len(y) / (classes * np.maximum(counts, 1)), 1).astype(np.float32)


def _class_encoder(name: str, classes: Sequence[Any], rule: TextRule) -> CategoryEncoder:
    """Return the encoder that codes the classes from 1 on."""
    if all(isinstance(value, str) for value in classes):
        return CategoryEncoder(name, "text", tuple(classes), False, rule)
    form = "bool" if all(isinstance(value, bool) for value in classes) else "number"
    return CategoryEncoder(name, form, tuple(str(number_text(value)) for value in classes), False, rule)
