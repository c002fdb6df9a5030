"""Predictions as objects for JSON, lines of text, or columns of a table, and the writer of tables."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from onecycle.core.files import atomic_write
from onecycle.errors import printable
from onecycle.predictor import LABEL_THRESHOLD, Predictor

_ARROW_SUFFIXES, _DELIMITERS = (".arrow", ".feather"), {".csv": ",", ".tsv": "\t"}
_LIST_SEPARATOR = ";"  # between the items of a list in a CSV cell


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
            predicted = pa.array(labels).take(pa.array(array.argmax(1)))
        else:
            labels = self._classes
            predicted = pa.array([self._labels(row) for row in array.tolist()], pa.list_(pa.array(labels).type))
        probabilities = {
            f"probability_{label}": pa.array(np.ascontiguousarray(column))
            for label, column in zip(labels, array.T, strict=True)
        }
        return {"prediction": predicted, **probabilities}

    def _class(self, index: int) -> Any:
        return self._classes[index] if index < len(self._classes) else index

    def _labels(self, row: Sequence[float]) -> list[Any]:
        return [label for label, p in zip(self._classes, row, strict=True) if p > LABEL_THRESHOLD]


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


@contextmanager
def open_table_writer(path: Path) -> Generator[Callable[[Any], None]]:
    """Yield a function that appends a pyarrow Table to the file `path`: Parquet, CSV, TSV or Arrow, by its suffix.

    All tables have the same columns. The file is there, or replaced, when the block ends without an error. Raise
    OutputError if it cannot be written.
    """
    writer: Any = None

    def write(table: Any) -> None:
        nonlocal writer
        table = _convert_types(table, path.suffix.lower())
        if writer is None:
            writer = _open_writer(path.suffix.lower(), file, table.schema)
        writer.write_table(table)

    with atomic_write(path) as file:
        try:
            yield write
        finally:
            if writer is not None:
                writer.close()


def _open_writer(suffix: str, file: BinaryIO, schema: Any) -> Any:
    if suffix in _DELIMITERS:
        from pyarrow import csv  # pyright: ignore[reportMissingTypeStubs] -- it has none

        options = csv.WriteOptions(quoting_style="needed", delimiter=_DELIMITERS[suffix])
        return csv.CSVWriter(file, schema, write_options=options)
    if suffix in _ARROW_SUFFIXES:
        from pyarrow import ipc  # pyright: ignore[reportMissingTypeStubs] -- it has none

        return ipc.new_file(file, schema)
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs] -- it has none

    return parquet.ParquetWriter(file, schema)


def _convert_types(table: Any, suffix: str) -> Any:
    """Return the table with types that the file's format has."""
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] -- it has none

    is_csv, types = suffix in _DELIMITERS, pa.types
    for i, field in enumerate(table.schema):
        kind, column = field.type, table.column(i)
        if types.is_dictionary(kind) and (is_csv or suffix in _ARROW_SUFFIXES):
            column = column.cast(kind.value_type)  # each table may have a dictionary of its own
        elif is_csv and (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
            texts = [None if cell is None else _join(cell) for cell in column.to_pylist()]
            column = pa.chunked_array([pa.array(texts, pa.string())])
        elif is_csv and types.is_string_view(kind):
            column = column.cast(pa.large_string())
        else:
            continue
        table = table.set_column(i, pa.field(field.name, column.type), column)
    return table


def _join(items: Sequence[Any]) -> str:
    return _LIST_SEPARATOR.join("" if item is None else str(item) for item in items)
