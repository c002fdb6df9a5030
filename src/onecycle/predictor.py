"""Predictor: a trained model and what is needed to ask it."""

import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from onecycle.core.errors import DataError
from onecycle.core.versions import versions
from onecycle.data.batches import Batches, InMemoryLoader
from onecycle.data.bunch import DataBunch
from onecycle.data.tensors import as_dataset, as_tensor
from onecycle.keep.checkpoint import weights_of
from onecycle.keep.export import BundleInfo, export_bundle
from onecycle.train import loop
from onecycle.train.losses import activation, is_classification, loss_name
from onecycle.train.metrics import Metric, metric_name
from onecycle.train.step import Forward, LossFunc, plain_forward

if TYPE_CHECKING:  # only a model of a table brings them
    from onecycle.tables.features import Features
    from onecycle.tables.target import Target

_ROWS_AT_ONCE = 1024
_FEW = 8  # rows that a model is traced with
_HOLDS = 0.5  # the probability from which on a label is predicted


class Predictor:
    """Predicts with `model`. What it knows of the rows comes from the data, or from the bundle it was loaded from."""

    def __init__(self, model: nn.Module, device: torch.device, data: DataBunch | None, info: BundleInfo | None) -> None:
        self.model, self.device = model.to(device), device
        self.loss_func: LossFunc
        self.metrics: list[Metric] = []
        self.path = Path()  # what `export` is relative to
        self._forward: Forward = plain_forward
        self._data, self._info = data, info

    @property
    def data(self) -> DataBunch:
        """The data. Raises DataError for a learner that was loaded without any."""
        if self._data is None:
            raise DataError("this learner was loaded without data; give it some: load_learner(path, data=...)")
        return self._data

    @property
    def classes(self) -> list[Any] | None:
        """The classes' names, or None for regression."""
        return self._data.classes if self._data is not None else self._info.classes if self._info else None

    @property
    def input_shape(self) -> torch.Size | None:
        """The shape of one row, or None where it is not known."""
        if self._data is None:
            known = self._info.input_shape if self._info else None
            return torch.Size(known) if known is not None else None
        rows = self._data.inputs
        return rows.shape[1:] if rows is not None else None

    @property
    def input_dtype(self) -> torch.dtype | None:
        """The dtype of the rows trained on, or None where it is not known."""
        if self._data is None:
            return getattr(torch, self._info.input_dtype) if self._info and self._info.input_dtype else None
        rows = self._data.inputs
        return rows.dtype if rows is not None else None

    @property
    def pixel_scale(self) -> float | None:
        """What the pixels of an image are divided by, or None where the rows are no images."""
        return self._data.pixel_scale if self._data is not None else self._info.pixel_scale if self._info else None

    @property
    def features(self) -> "Features | None":
        """How the rows of a table become the model's input, or None where they are no table's."""
        if self._data is not None:
            return self._data.features
        if self._info is None or self._info.features is None:
            return None
        from onecycle.tables.features import Features

        return Features.from_dict(self._info.features)

    @property
    def target(self) -> "Target | None":
        """What is predicted, or None where the data did not come from a table."""
        if self._data is not None:
            return self._data.target
        if self._info is None or self._info.target is None:
            return None
        from onecycle.tables.target import Target

        return Target.from_dict(self._info.target)

    def get_preds(self, which: Any = "valid") -> tuple[Tensor, Tensor | None]:
        """Predictions and targets (None where there are none), on the CPU, in the data set's order.

        `which` names a set (train, valid, test), or is a loader, an array or tensor of rows, or, for the model of a
        table, raw rows: a table in memory or the path of one, its columns in any order and among others. Predictions
        are probabilities (n, classes) for cross-entropy, of each label for several labels, and for regression what the
        model gives, in the target's units.
        """
        rows = self._rows(which)
        if rows is not None:
            scale = self.pixel_scale
            which = InMemoryLoader(TensorDataset(rows), _ROWS_AT_ONCE, self.device, seed=0, pixel_scale=scale)
        outputs, targets = loop.predict(self.model, self.loader(which).epoch(0), self._forward)
        preds, target = activation(self.loss_func)(outputs.float()), self.target
        if target is None or target.task != "regression":
            return preds, targets
        preds = preds.flatten() if target.outputs == 1 else preds
        return target.restore(preds), target.restore(targets) if targets is not None else None

    def _rows(self, which: Any) -> Tensor | None:
        """The model's input for raw rows; None where `which` is no such thing."""
        if isinstance(which, str) and which in ("train", "valid", "test", "fix"):
            return None
        features = self.features
        if features is None:
            if not isinstance(which, Tensor | np.ndarray):
                return None
            rows = as_dataset(which, "x").tensors[0]
            floats = self.input_dtype is not None and self.input_dtype.is_floating_point
            return rows.to(self.input_dtype) if floats else rows  # whole numbers, half precision: what the model takes
        from onecycle.data.sources import table_of_rows

        table = table_of_rows(which, features.as_written)
        return None if table is None else torch.from_numpy(features.transform(table))

    def predict(self, row: Any) -> tuple[Any, Tensor, Tensor]:
        """The class of one row (an array or tensor; of a table, a dict), its number, and the probabilities of all.

        For regression: the value as a number (or list), and twice the model's output. For several labels: those that
        hold, a mask, and their probabilities. Raises DataError for anything but one row.
        """
        output = self.get_preds(self._one_row(row))[0][0]
        return self.answer(output), *self._numbers(output)

    def answer(self, output: Tensor) -> Any:
        """What one of the predictions of `get_preds` means: a class, a value or list of them, the labels that hold."""
        if self.target is not None and self.target.task == "multilabel":
            return [name for name, it in zip(self.classes or [], (output > _HOLDS).tolist(), strict=True) if it]
        if self._is_regression():
            return output.squeeze().tolist()
        number, names = int(output.argmax()), self.classes or []
        return names[number] if number < len(names) else number

    def _numbers(self, output: Tensor) -> tuple[Tensor, Tensor]:
        if self.target is not None and self.target.task == "multilabel":
            return output > _HOLDS, output
        return (output if self._is_regression() else output.argmax()), output

    def _is_regression(self) -> bool:
        return self.classes is None and not is_classification(self.loss_func)

    def _one_row(self, row: Any) -> Any:
        if isinstance(row, tuple):
            raise DataError("row is a tuple; expected x alone, for example data.valid_ds[0][0]")
        if self.features is not None and isinstance(row, dict):
            return [row]
        if self.features is not None and not isinstance(row, Tensor | np.ndarray):
            return row
        x = as_tensor(row, "row")
        shape = self.input_shape if self.features is None else None
        if shape is not None and x.shape != shape:
            if x.numel() != shape.numel():
                several = ": use get_preds for several" if x.shape[1:] == shape else ""
                raise DataError(f"row has shape {tuple(x.shape)}; expected one row of shape {tuple(shape)}{several}")
            x = x.reshape(shape)  # an image where the model takes it flat, say
        return x[None]

    def export(self, name: str | Path = "export.onecycle", overwrite: bool = False) -> Path:
        """Write a bundle for prediction elsewhere to `path / name`, and return that: a folder, or of *.zip one file.

        It holds weights (safetensors) and JSON, no code and no pickle; of a table also how raw rows are prepared. A
        model that is not the library's own is traced with a few rows, so that no class is needed to load it; where
        that fails, a warning says why. Raises OutputError where it exists, unless `overwrite`, or cannot be written,
        ModelError for a model whose state is not all tensors.
        """
        weights_of(self.model)
        shape, features, target = self.input_shape, self.features, self.target
        info = BundleInfo(
            loss=loss_name(self.loss_func),
            metrics=[_name_of_its_own(metric) for metric in self.metrics],
            classes=self.classes,
            input_shape=list(shape) if shape is not None else None,
            input_dtype=str(self.input_dtype).removeprefix("torch.") if self.input_dtype is not None else None,
            pixel_scale=self.pixel_scale,
            versions=versions(self.device),
            features=features.to_dict() if features is not None else None,
            target=target.to_dict() if target is not None else None,
        )
        path = self.path / name
        export_bundle(path, self.model, info, overwrite, self._few_rows)
        return path

    def to_onnx(self, name: str | Path = "model.onnx", overwrite: bool = False) -> Path:
        """Write the model, from its input to its output, as ONNX to `path / name`, and return that.

        onnxruntime runs it beside the model on a few rows, and the file gets its place only where they agree to 1e-5.
        Preparing rows and softmax are not in it. Raises SettingError without `pip install "onecycle[onnx]"`,
        ModelError where the model has no ONNX, OutputError where the file exists, unless `overwrite`.
        """
        from onecycle.keep.onnx_file import write_onnx

        path = self.path / name
        write_onnx(
            path, self.model, self._few_rows(), overwrite, {"loss": loss_name(self.loss_func), "classes": self.classes}
        )
        return path

    def _few_rows(self) -> list[Tensor]:
        """A few rows as the model takes them, of several inputs a list: of the training data where there is some."""
        if self._data is None:
            shape, dtype = self.input_shape, self.input_dtype
            if shape is None or dtype is None:
                raise DataError("there is no data, and nothing says what the model's rows look like")
            made = torch.rand((_FEW, *shape), generator=torch.Generator().manual_seed(0))
            return [
                made if dtype.is_floating_point or self.pixel_scale is not None else torch.zeros_like(made, dtype=dtype)
            ]
        x, _ = next(iter((self._data.fix_dl or self._data.valid_dl or self._data.train_dl).epoch(0)))
        return [part[:_FEW].cpu() for part in (x if isinstance(x, list) else [x])]

    def loader(self, which: str | Batches) -> Batches:
        """The loader called `which` (valid, test; train in order), or `which` itself. Raises DataError for neither."""
        if isinstance(which, str):
            return self.data.dl("fix" if which == "train" else which)
        if not hasattr(which, "epoch"):
            raise DataError(
                f"{reprlib.repr(which)}, of type {type(which).__name__}, cannot be predicted; expected the name of a "
                "set, a loader, an array of rows, or for the model of a table raw rows"
            )
        return which


def _name_of_its_own(metric: Metric) -> str:
    """A metric's name; that of anybody else's function says where it is from: it may be called as the library's."""
    place = str(getattr(metric, "__module__", ""))
    return metric_name(metric) if place.startswith("onecycle.") else f"{place}.{metric_name(metric)}"
