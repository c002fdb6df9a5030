"""Predictions as objects for JSON, lines of text, or columns of a table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from onecycle.errors import printable
from onecycle.predictor import LABEL_THRESHOLD, Predictor


class PredictionFormatter:
    """Turns predictions (n, outputs) into what they mean: classes, values or labels."""

    def __init__(self, predictor: Predictor) -> None:
        target, classes = predictor.target, predictor.classes
        self.task = target.task if target is not None else "regression" if classes is None else "classes"
        self._classes = classes or []
        self._names = target.names if target is not None else []

    def objects(self, preds: Tensor) -> list[dict[str, Any]]:
        """Return for each row {class, probability}, {value} (or {values} by target) or {labels, probabilities}."""
        array = preds.numpy()
        if self.task == "classes":
            best = array.argmax(1)
            highest = array[np.arange(len(array)), best].tolist()
            return [
                {"class": self._class(index), "probability": round(probability, 6)}
                for index, probability in zip(best.tolist(), highest, strict=True)
            ]
        if self.task == "multilabel":
            names = [str(name) for name in self._classes]
            return [
                {
                    "labels": self._labels(row),
                    "probabilities": dict(zip(names, [round(probability, 6) for probability in row], strict=True)),
                }
                for row in array.tolist()
            ]
        if array.ndim == 2 and len(self._names) > 1:
            return [{"values": dict(zip(self._names, map(_shortest, row), strict=True))} for row in array]
        return [{"value": _shortest(row)} for row in array]

    def lines(self, preds: Tensor) -> list[str]:
        """Return for each row class and probability, or values, separated by tabs; or labels, separated by commas."""
        if self.task == "multilabel":
            return [",".join(map(escape, row["labels"])) for row in self.objects(preds)]
        return ["\t".join(map(escape, row.get("values", row).values())) for row in self.objects(preds)]

    def columns(self, preds: Tensor) -> dict[str, Any]:
        """Return the predictions as Arrow arrays by the names of their columns."""
        import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

        array = preds.numpy()
        if self.task == "regression":
            columns = array.reshape(len(array), -1).T
            names = [f"prediction_{name}" for name in self._names] if len(columns) > 1 else ["prediction"]
            names = names if len(names) == len(columns) else [f"prediction_{i}" for i in range(len(columns))]
            return {name: pa.array(np.ascontiguousarray(column)) for name, column in zip(names, columns, strict=True)}
        if self.task == "classes":
            labels = [self._class(index) for index in range(array.shape[1])]
            predicted = _label_array(labels).take(pa.array(array.argmax(1)))
        else:
            labels = self._classes
            predicted = pa.array([self._labels(row) for row in array.tolist()], pa.list_(_label_array(labels).type))
        probabilities = {
            f"probability_{label}": pa.array(np.ascontiguousarray(column))
            for label, column in zip(labels, array.T, strict=True)
        }
        return {"prediction": predicted, **probabilities}

    def _class(self, index: int) -> Any:
        return self._classes[index] if index < len(self._classes) else index

    def _labels(self, row: Sequence[float]) -> list[Any]:
        return [label for label, p in zip(self._classes, row, strict=True) if p > LABEL_THRESHOLD]


def _label_array(labels: Sequence[Any]) -> Any:
    """Return labels as an Arrow array; whole numbers beyond 2**63, such as hashes, as they are."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    try:
        return pa.array(labels)
    except OverflowError:
        return pa.array(labels, pa.uint64())


def _shortest(value: Any) -> Any:
    """Return a float32 as the shortest number that stands for it, not with digits that it does not have."""
    if isinstance(value, np.ndarray) and value.size > 1:
        return [_shortest(item) for item in value.ravel()]
    number = value.item() if isinstance(value, np.ndarray) else value
    if isinstance(value, np.ndarray | np.generic) and value.dtype == np.float32:
        return float(str(np.float32(number)))
    return float(number)


def escape(value: Any) -> str:
    """Return a value as text on one line, without tabs and other control characters."""
    return printable(str(value), one_line=True, keep_bytes=True)


def unused_names(names: Sequence[str], used: Sequence[str]) -> list[str]:
    """Return `names`; if one of them is used, all with the first suffix _1, _2, … for which none is."""
    candidates, count = [*names], 0
    while set(used) & set(candidates):
        count += 1
        candidates = [f"{name}_{count}" for name in names]
    return candidates
