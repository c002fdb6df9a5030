"""Predictor: a trained model that predicts rows, and how to load one from a bundle."""

import reprlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from onecycle.checkpoint.weights import weights_of
from onecycle.core.choices import SetName
from onecycle.core.device import pick_device, versions
from onecycle.core.models import MLP, TabularModel
from onecycle.data.arrays import as_dataset, as_tensor
from onecycle.data.bunch import DataBunch
from onecycle.data.loaders import InMemoryLoader, Loader
from onecycle.errors import DataError, FileError
from onecycle.export.bundle import BundleInfo, export_bundle, read_bundle
from onecycle.train.epoch_metrics import average_precision, f1_score, mae, mse, r2_score, rmse, roc_auc
from onecycle.train.evaluate import predict
from onecycle.train.losses import NamedLoss, is_classification, loss_name, output_activation
from onecycle.train.metrics import (
    Metric,
    accuracy,
    error_rate,
    mean_absolute_error,
    mean_squared_error,
    metric_name,
    root_mean_squared_error,
)
from onecycle.train.step import Forward, LossFunc, plain_forward

if TYPE_CHECKING:  # only the model of a table needs them, and they import pyarrow
    from onecycle.tables.features import Features
    from onecycle.tables.target import Target

LABEL_THRESHOLD = 0.5  # probability above which a label is predicted
_BATCH_SIZE = 1024  # of raw rows
_TRACE_ROWS = 8


class Predictor:
    """A trained model and what is needed to predict with it.

    `load_predictor` makes one from a bundle; every `Learner` is one too.

    Args:
        model: The model; it is moved to `device`.
        loss_func: The loss it was trained with, which decides how outputs become predictions.
        source: Describes the rows: the data trained on, or the info of a bundle.
        device: Where to predict.
        metrics: The metrics it was validated with.
        path: Folder that `export` and `to_onnx` write to.
        forward: How the model is called.

    Example:
        >>> digits = load_predictor("digits.onecycle")
        >>> digit, index, probabilities = digits.predict(image)
        >>> digits.predict_rows(images)
        [7, 2, 1]
    """

    def __init__(
        self,
        model: nn.Module,
        loss_func: LossFunc,
        source: DataBunch | BundleInfo | None,
        device: torch.device,
        metrics: Sequence[Metric] = (),
        path: str | Path = ".",
        forward: Forward = plain_forward,
    ) -> None:
        self.model, self.device = model.to(device), device
        self.loss_func: LossFunc = loss_func
        self.metrics: list[Metric] = [*metrics]
        self.path = Path(path)
        self._source, self._forward = source, forward

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.model).__name__}, classes={reprlib.repr(self.classes)})"

    @property
    def data(self) -> DataBunch:
        """The data. Raises DataError if the model was loaded without any."""
        if not isinstance(self._source, DataBunch):
            raise DataError("this learner was loaded without data; give it some: load_learner(path, data=...)")
        return self._source

    @property
    def classes(self) -> list[Any] | None:
        """Names of the classes or labels, or None for a regression."""
        return self._source.classes if self._source else None

    @property
    def input_shape(self) -> torch.Size | None:
        """Shape of one row, or None if it is not known."""
        return self._source.row_shape if self._source else None

    @property
    def input_dtype(self) -> torch.dtype | None:
        """dtype of the rows trained on, or None if it is not known."""
        return self._source.row_dtype if self._source else None

    @property
    def pixel_scale(self) -> float | None:
        """Divisor of pixel values, or None if the rows are not images."""
        return self._source.pixel_scale if self._source else None

    @property
    def features(self) -> "Features | None":
        """Preprocessing of a table's rows, or None if the data did not come from a table."""
        return self._source.features if self._source else None

    @property
    def target(self) -> "Target | None":
        """Description of the target, or None if the data did not come from a table."""
        return self._source.target if self._source else None

    def get_preds(self, which: SetName | Loader | Any = "valid") -> tuple[Tensor, Tensor | None]:
        """Predict a data set, a loader or raw rows.

        Args:
            which: The name of a set ("train" is in order), a loader, an array or tensor of rows, or, for the model of a
                table, raw rows: a table in memory or the path of one, with the model's columns in any order.

        Returns:
            Predictions and targets (None if there are none), on the CPU, in the order of the rows. Predictions are
            probabilities (n, classes) for cross-entropy, a probability for each label for multilabel targets, and for
            a regression the model's outputs in the target's units.

        Raises:
            DataError: If `which` is not something that can be predicted.

        Example:
            >>> probabilities, targets = learn.get_preds("valid")
        """
        rows = self._as_rows(which)
        loader = self._loader(which) if rows is None else self._row_loader(rows)
        outputs, targets = predict(self.model, loader.epoch(0), self._forward)
        preds = self.as_predictions(outputs)
        if targets is not None and self.target is not None:
            targets = self.target.inverse_transform(targets)
        return preds, targets

    def as_predictions(self, outputs: Tensor) -> Tensor:
        """Turn model outputs into probabilities, or for a regression into values in the target's units.

        Args:
            outputs: Outputs of the model, (n, ...).
        """
        preds, target = output_activation(self.loss_func)(outputs.float()), self.target
        if target is None or target.task != "regression":
            return preds
        return target.inverse_transform(preds.flatten() if target.outputs == 1 else preds)

    def predict(self, row: Any) -> tuple[Any, Tensor, Tensor]:
        """Predict one row.

        Args:
            row: An array or tensor; for the model of a table a dict, or a table of one row.

        Returns:
            The class, its index, and the probabilities of all classes. For multilabel targets: the labels, a mask, and
            the probability of each label. For a regression: the value as a number or list, and twice the value as a
            tensor.

        Raises:
            DataError: If `row` is not one row.

        Example:
            >>> digit, index, probabilities = learn.predict(data.valid_ds[0][0])
        """
        pred = self.get_preds(self._one_row(row))[0][0]
        if self._is_multilabel():
            return self.decode_prediction(pred), pred > LABEL_THRESHOLD, pred
        return self.decode_prediction(pred), pred if self._is_regression() else pred.argmax(), pred

    def predict_rows(self, rows: Any) -> list[Any]:
        """Predict many rows: for each its class, its value (or list of values), or its labels.

        Args:
            rows: What `get_preds` takes.

        Example:
            >>> load_predictor("sales.onecycle").predict_rows("new.csv")
            [1810.5, 2030.1]
        """
        return [self.decode_prediction(pred) for pred in self.get_preds(rows)[0]]

    def decode_prediction(self, pred: Tensor) -> Any:
        """Return the class, the value (or list of values) or the labels that one prediction stands for.

        Args:
            pred: One of the predictions of `get_preds`.
        """
        names = self.classes or []
        if self._is_multilabel():
            return [name for name, is_there in zip(names, (pred > LABEL_THRESHOLD).tolist(), strict=True) if is_there]
        if self._is_regression():
            return pred.squeeze().tolist()
        index = int(pred.argmax())
        return names[index] if index < len(names) else index

    def export(self, name: str | Path = "export.onecycle", overwrite: bool = False) -> Path:
        """Write a bundle, which predicts in another process without the model's code.

        A bundle holds weights (safetensors) and JSON, no code and no pickle, and for a table how raw rows are prepared.
        A model that is not the library's own is traced with a few rows; if that fails, a warning says why, and loading
        asks for the model's class.

        Args:
            name: Where to write, relative to `path`: a folder, or one file if it ends in .zip.
            overwrite: Replace an older bundle.

        Returns:
            The path of the bundle.

        Raises:
            OutputError: If it exists, or cannot be written.
            ModelError: If part of the model's state is not a tensor.

        Example:
            >>> learn.export("digits.onecycle")
        """
        weights_of(self.model)
        shape, features, target = self.input_shape, self.features, self.target
        info = BundleInfo(
            loss=loss_name(self.loss_func),
            metrics=[_qualified_metric_name(metric) for metric in self.metrics],
            classes=self.classes,
            input_shape=list(shape) if shape is not None else None,
            input_dtype=str(self.input_dtype).removeprefix("torch.") if self.input_dtype is not None else None,
            pixel_scale=self.pixel_scale,
            versions=versions(self.device),
            features=features,
            target=target,
        )
        path = self.path / name
        export_bundle(path, self.model, info, overwrite, self._trace_rows)
        return path

    def to_onnx(self, name: str | Path = "model.onnx", overwrite: bool = False) -> Path:
        """Write the model, from its input to its raw output, as ONNX; preparing rows and softmax are not in it.

        onnxruntime runs the file beside the model on a few rows first; it is written only if they agree to 1e-5.

        Args:
            name: File name, relative to `path`.
            overwrite: Replace an existing file.

        Returns:
            The path of the file.

        Raises:
            SettingError: Without `pip install "onecycle[onnx]"`.
            ModelError: If the model cannot be written as ONNX.
            OutputError: If the file exists, or cannot be written.

        Example:
            >>> learn.to_onnx("digits.onnx")
        """
        from onecycle.export.onnx import write_onnx

        path = self.path / name
        metadata = {"loss": loss_name(self.loss_func), "classes": self.classes}
        write_onnx(path, self.model, self._trace_rows(), overwrite, metadata)
        return path

    # --- rows --------------------------------------------------------------------------------------------------------

    def _loader(self, which: SetName | Loader) -> Loader:
        """Return the loader of that name (train in order), or `which` itself. Raises DataError for anything else."""
        if isinstance(which, str):
            return self.data.dl("fix" if which == "train" else which)
        if not hasattr(which, "epoch"):
            raise DataError(
                f"{reprlib.repr(which)}, of type {type(which).__name__}, cannot be predicted; expected the name of a "
                "set, a loader, an array of rows, or for the model of a table raw rows"
            )
        return which

    def _row_loader(self, rows: Tensor) -> Loader:
        return InMemoryLoader(TensorDataset(rows), _BATCH_SIZE, self.device, seed=0, pixel_scale=self.pixel_scale)

    def _as_rows(self, which: Any) -> Tensor | None:
        """Return the model's input for raw rows, or None if `which` is not raw rows."""
        if isinstance(which, str) and which in ("train", "valid", "test", "fix"):
            return None
        features = self.features
        if features is None:
            if not isinstance(which, Tensor | np.ndarray):
                return None
            rows = as_dataset(which, "x").tensors[0]
            is_float = self.input_dtype is not None and self.input_dtype.is_floating_point
            return rows.to(self.input_dtype) if is_float else rows  # integers, half precision: what the model takes
        from onecycle.data.sources import table_of_rows

        table = table_of_rows(which, features.text_columns)
        return None if table is None else torch.from_numpy(features.transform(table))

    def _one_row(self, row: Any) -> Any:
        """Return `row` as a batch of one. Raises DataError if it is something else."""
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
                hint = ": use get_preds for several rows" if x.shape[1:] == shape else ""
                raise DataError(f"row has shape {tuple(x.shape)}; expected one row of shape {tuple(shape)}{hint}")
            x = x.reshape(shape)  # for example an image if the model takes it flat
        return x[None]

    def _trace_rows(self) -> list[Tensor]:
        """A few rows as the model takes them, one tensor an input: training rows if there are some."""
        if isinstance(self._source, DataBunch):
            data = self._source
            x, _ = next(iter((data.fix_dl or data.valid_dl or data.train_dl).epoch(0)))
            return [part[:_TRACE_ROWS].cpu() for part in (x if isinstance(x, list) else [x])]
        shape, dtype = self.input_shape, self.input_dtype
        if shape is None or dtype is None:
            raise DataError("the model was loaded without data, and the bundle does not say what its rows look like")
        rows = torch.rand((_TRACE_ROWS, *shape), generator=torch.Generator().manual_seed(0))
        is_float = dtype.is_floating_point or self.pixel_scale is not None
        return [rows if is_float else torch.zeros_like(rows, dtype=dtype)]

    def _is_multilabel(self) -> bool:
        return self.target is not None and self.target.task == "multilabel"

    def _is_regression(self) -> bool:
        return self.classes is None and not is_classification(self.loss_func)


def load_predictor(
    path: str | Path, model: nn.Module | type[nn.Module] | None = None, device: str | torch.device | None = None
) -> Predictor:
    """Load a bundle that `export` wrote. Nothing in it is unpickled or run while it is loaded.

    Args:
        path: The bundle: a folder or a .zip file.
        model: The model's class or an instance, if the bundle asks for it: the library's own models and traced models
            need none.
        device: Where to predict; by default the fastest device there is.

    Returns:
        A Predictor that gives the same predictions as the model that was exported.

    Raises:
        FileError: If the bundle is missing or damaged.
        ModelError: If the model's class is needed, or does not fit.

    Example:
        >>> load_predictor("digits.onecycle").predict_rows(images)
        [7, 2, 1]
    """
    place = pick_device(device)
    module, info = read_checked_bundle(path, model)
    return Predictor(module, NamedLoss(info.loss), info, place, metrics_by_name(info.metrics))


def read_checked_bundle(path: str | Path, model: nn.Module | type[nn.Module] | None) -> tuple[nn.Module, BundleInfo]:
    """Read a bundle and check that its preprocessing and its model belong together. Raises as `load_predictor` does."""
    module, info = read_bundle(Path(path), model)
    features, target = info.features, info.target
    if type(module) is TabularModel:
        inputs, outputs = module.numbers + len(module.sizes), module.outputs
        fits = features is None or (features.numbers, features.sizes) == (module.numbers, module.sizes)
    elif type(module) is MLP:
        inputs, outputs = module.sizes[0], module.sizes[-1]
        fits = features is None or len(features.names) == inputs
    else:
        return module, info
    if info.input_shape is not None:
        fits = fits and prod(info.input_shape) == inputs
    if not fits or (target is not None and target.outputs > outputs):
        raise FileError(
            f"{path}: the model has {inputs:,} inputs and {outputs:,} outputs, which does not match the preprocessing; "
            "use an undamaged copy, or export the model again"
        )
    return module, info


def metrics_by_name(names: Sequence[str]) -> list[Metric]:
    """Return the library's metrics of these names; others are left out."""
    known = {metric_name(metric): metric for metric in _METRICS}
    return [known[name] for name in names if name in known]


_METRICS: tuple[Metric, ...] = (
    *(accuracy, error_rate, mean_squared_error, mean_absolute_error, root_mean_squared_error),
    *(f1_score, roc_auc, average_precision, r2_score, mse, rmse, mae),
)


def _qualified_metric_name(metric: Metric) -> str:
    """The metric's name; a user's metric is prefixed with its module, so that it cannot be mistaken for ours."""
    module = str(getattr(metric, "__module__", ""))
    return metric_name(metric) if module.startswith("onecycle.") else f"{module}.{metric_name(metric)}"
