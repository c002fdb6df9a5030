"""A model's predictions in the words of what was predicted: classes, values or labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from onecycle.predictor import LABEL_THRESHOLD, Predictor


class PredictionFormatter:
    """Says what predictions (n, outputs) mean: as objects for JSON, as lines of text, as columns of a table."""

    def __init__(self, learn: Predictor) -> None:
        target = learn.target
        self.classes = learn.classes
        self.task = target.task if target is not None else "regression" if self.classes is None else "classes"
        self.names = target.names if target is not None else []

    def objects(self, preds: Tensor) -> list[dict[str, Any]]:
        """For each row {class, probability}, {value} (of several targets {values}) or {labels, probabilities}."""
        array = preds.numpy()
        if self.task == "classes":
            best = array.argmax(1)
            picked = array[np.arange(len(array)), best].tolist()
            return [
                {"class": self._class(at), "probability": round(p, 6)}
                for at, p in zip(best.tolist(), picked, strict=True)
            ]
        if self.task == "multilabel":
            names = [str(name) for name in self.classes or []]
            return [
                {
                    "labels": self._labels(row),
                    "probabilities": dict(zip(names, [round(p, 6) for p in row], strict=True)),
                }
                for row in array.tolist()
            ]
        if array.ndim == 2 and len(self.names) > 1:
            return [{"values": dict(zip(self.names, map(_shortest, row), strict=True))} for row in array]
        return [{"value": _shortest(row)} for row in array]

    def lines(self, preds: Tensor) -> list[str]:
        """For each row class and probability, value or values, with tabs between; or labels with commas between."""
        if self.task == "multilabel":
            return [",".join(_on_a_line(label) for label in found["labels"]) for found in self.objects(preds)]
        found = ([*entry["values"].values()] if "values" in entry else entry.values() for entry in self.objects(preds))
        return ["\t".join(map(_on_a_line, values)) for values in found]

    def columns(self, preds: Tensor) -> dict[str, Any]:
        """The predictions as Arrow arrays by the names of their columns."""
        import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

        array = preds.numpy()
        if self.task == "regression":
            columns = array.reshape(len(array), -1).T
            names = [f"prediction_{name}" for name in self.names] if len(columns) > 1 else ["prediction"]
            names = names if len(names) == len(columns) else [f"prediction_{i}" for i in range(len(columns))]
            return {name: pa.array(np.ascontiguousarray(column)) for name, column in zip(names, columns, strict=True)}
        if self.task == "classes":
            labels = [self._class(at) for at in range(array.shape[1])]
            predicted = pa.array(labels).take(pa.array(array.argmax(1)))
        else:
            labels = self.classes or []
            kind = pa.list_(pa.array(labels).type)
            predicted = pa.array([self._labels(row) for row in array.tolist()], kind)
        probabilities = {
            f"probability_{label}": pa.array(np.ascontiguousarray(column))
            for label, column in zip(labels, array.T, strict=True)
        }
        return {"prediction": predicted, **probabilities}

    def _class(self, at: int) -> Any:
        classes = self.classes or []
        return classes[at] if at < len(classes) else at

    def _labels(self, row: Sequence[float]) -> list[Any]:
        return [label for label, p in zip(self.classes or [], row, strict=True) if p > LABEL_THRESHOLD]


def free_names(wanted: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The `wanted` names, or where one of them is taken all with _1, or the first number that is free, behind them."""
    used, names, count = set(taken), [*wanted], 0
    while used & set(names):
        count += 1
        names = [f"{name}_{count}" for name in wanted]
    return names


def _shortest(value: Any) -> Any:
    """A float32 as the shortest number that stands for it, and not with digits that it does not have."""
    if isinstance(value, np.ndarray) and value.size > 1:
        return [_shortest(item) for item in value.ravel()]
    number = value.item() if isinstance(value, np.ndarray) else value
    if isinstance(value, np.ndarray | np.generic) and value.dtype == np.float32:
        return float(str(np.float32(number)))
    return float(number)


def _on_a_line(value: Any) -> str:
    return str(value).replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
