"""Predictor: a trained model that predicts rows, and how to load one from a bundle."""

import reprlib
from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from onecycle.checkpoint.weights import check_weights, weights_of
from onecycle.core.archives import as_place, place_name
from onecycle.core.choices import SetName
from onecycle.core.device import pick_device, versions
from onecycle.core.meaning import check_rows, describe_meaning
from onecycle.core.models import MLP, TabularModel
from onecycle.core.nested import count_rows, leaves_by_path, map_leaves, map_tensors, tensors_in
from onecycle.data.arrays import as_tensor, is_in_memory
from onecycle.data.bunch import DataBunch
from onecycle.data.loaders import Loader, TorchLoader, as_batch
from onecycle.errors import DataError, FileError, ModelError, OneCycleError, printable, warn_user
from onecycle.export.bundle import BundleInfo, RowSpec, export_bundle, read_bundle
from onecycle.train.checks import materialise
from onecycle.train.epoch_metrics import average_precision, f1_score, mae, mse, r2_score, rmse, roc_auc
from onecycle.train.evaluate import predict
from onecycle.train.generators import evaluating
from onecycle.train.losses import NamedLoss, is_binary, is_classification, loss_name, output_activation
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
        self._first_batch: tuple[object, Any] = (None, None)  # the data, and the specs of its inputs

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

    def get_preds(self, which: SetName | Loader | Any = "valid") -> tuple[Any, Any]:
        """Predict a data set, a loader or raw rows.

        Args:
            which: The name of a set ("train" is in order), a loader (torch's too), an array, tensor or list of rows;
                for a model of several inputs a tuple, list or dict of such, as it was trained with; for the model of a
                table raw rows: a table in memory or the path of one, with the model's columns in any order.

        Returns:
            Predictions and targets (None if there are none), on the CPU, in the order of the rows. Predictions are
            probabilities (n, classes) for cross-entropy, a probability for each label for multilabel targets, and for
            a regression the model's outputs in the target's units. Of a model that returns a list, tuple, dict or
            dataclass they are nested in the same way, each part as the model returns it: no softmax, no units.

        Raises:
            DataError: If `which` is not something that can be predicted.
            ModelError: If the model's weights contain NaN.

        Example:
            >>> probabilities, targets = learn.get_preds("valid")
        """
        outputs, targets = self._outputs(which)
        if targets is not None and self.target is not None:
            targets = map_tensors(self.target.inverse_transform, targets)
        return self.as_predictions(outputs), targets

    def as_predictions(self, outputs: Any) -> Any:
        """Turn model outputs into probabilities, or for a regression into values in the target's units.

        Args:
            outputs: Outputs of the model, (n, ...); nested outputs are returned as they are.
        """
        target = self.target
        if not isinstance(outputs, Tensor):
            if target is not None and target.task == "regression":
                warn_user(
                    f"the model returns a {type(outputs).__name__}, whose parts are as in training: standardised, not "
                    f"in the units of {printable(', '.join(target.names), one_line=True)}; "
                    "learn.target.inverse_transform converts them",
                )
            return outputs
        preds = output_activation(self.loss_func)(outputs.float())
        if target is None or target.task != "regression":
            return preds
        return target.inverse_transform(preds.flatten() if target.outputs == 1 else preds)

    def predict(self, row: Any) -> tuple[Any, Any, Any]:
        """Predict one row.

        Args:
            row: An array or tensor; for a model of several inputs a tuple, list or dict of them, for the model of a
                table a dict, or a table of one row.

        Returns:
            The class, its index, and the probabilities of all classes. For multilabel targets: the labels, a mask, and
            the probability of each label. For a regression: the value as a number or list, and twice the value as a
            tensor.

        Raises:
            DataError: If `row` is not one row.
            ModelError: If the model's weights or its output contain NaN, or if it returns several outputs and it is not
                clear which is the prediction: one must be alone, or called logits.

        Example:
            >>> digit, index, probabilities = learn.predict(data.valid_ds[0][0])
        """
        one = self._one_row(row)
        outputs, _ = self._run_on(one) if self.features is not None else self._run(self._row_batches(one))
        preds = self._single_output(outputs)
        if (rows := count_rows(preds)) != 1:
            raise ModelError(f"the model returns {rows} rows for one row; use get_preds, which returns all of them")
        pred = map_tensors(lambda part: part[0], preds)
        if self._is_multilabel():
            return self.decode_prediction(pred), pred > LABEL_THRESHOLD, pred
        if self._is_regression():
            return self.decode_prediction(pred), pred, pred
        index = self._class_index(pred)
        return _class_names(index.tolist(), self.classes or []), index, pred

    def predict_rows(self, rows: Any) -> list[Any]:
        """Predict many rows: for each its class, its value (or list of values), or its labels.

        Args:
            rows: What `get_preds` takes.

        Raises:
            OneCycleError: As `predict` does.

        Example:
            >>> load_predictor("sales.onecycle").predict_rows("new.csv")
            [1810.5, 2030.1]
        """
        preds = self._single_output(self._outputs(rows)[0])
        return [
            self.decode_prediction(map_tensors(lambda part, i=i: part[i], preds)) for i in range(count_rows(preds) or 0)
        ]

    def decode_prediction(self, pred: Any) -> Any:
        """Return the class, the value (or list of values) or the labels that one prediction stands for.

        Args:
            pred: One of the predictions of `get_preds`.

        Raises:
            ModelError: If it is NaN, which is no class and no label.
        """
        if self._is_regression():
            return map_tensors(_as_numbers, pred)
        if not self._is_multilabel():
            return _class_names(self._class_index(pred).tolist(), self.classes or [])
        self.check_predictions(pred)
        names = self.classes or []
        return [name for name, is_there in zip(names, (pred > LABEL_THRESHOLD).tolist(), strict=True) if is_there]

    def main_output(self, outputs: Any) -> Tensor:
        """Return the one of a model's outputs that is the prediction: the only one, or the one called logits.

        Args:
            outputs: Outputs of the model.

        Raises:
            ModelError: If it is not clear which that is.
        """
        if (output := _main_output(outputs)) is not None:
            return output
        shapes = [f"{path} {tuple(part.shape)}" for path, part in _tensors_by_path(outputs).items()]
        raise ModelError(
            f"the model returns {len(shapes)} outputs ({', '.join(shapes)}), and it is not known which is the "
            "prediction; get_preds returns all of them, or let forward return one in eval mode, or a dict in which it "
            "is called logits"
        )

    def check_predictions(self, preds: Tensor) -> None:
        """Raise ModelError if predictions of classes or labels contain NaN, of which argmax would make a class.

        Args:
            preds: Predictions of `get_preds`.
        """
        if not self._is_regression() and bool(preds.isnan().any()):
            check_weights(self.model, "every prediction would be NaN")
            raise ModelError(
                "the model's output contains NaN, which is no class, though its weights do not: look for NaN or very "
                "large numbers in the row, and for divisions by 0 in the model; get_preds shows its output"
            )

    def export(self, name: str | Path | IO[bytes] = "export.onecycle", overwrite: bool = False) -> Path:
        """Write a bundle, which predicts in another process without the model's code.

        A bundle holds weights (safetensors) and JSON, no code and no pickle, and for a table how raw rows are prepared.
        A model that is not the library's own, or was changed by hand, is traced with a few rows; if that fails, a
        warning says why, and loading asks for the model's class.

        Args:
            name: Where to write, relative to `path`: a folder, or one file if it ends in .zip; or a file-like object
                such as BytesIO, which gets the bytes of that file.
            overwrite: Replace an older bundle.

        Returns:
            The path of the bundle; for a file-like object a name for messages, such as <BytesIO>.

        Raises:
            OutputError: If it exists, or cannot be written.
            ModelError: If part of the model's state is not a tensor, or its weights contain NaN.

        Example:
            >>> learn.export("digits.onecycle")
        """
        self._materialise()
        weights_of(self.model)
        check_weights(self.model, "nothing was written")
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
            inputs=None if isinstance(inputs := self._input_specs(read=True), RowSpec) else inputs,
        )
        place = as_place(name, self.path)
        export_bundle(place, self.model, info, overwrite, self._trace_rows)
        return place_name(place)

    def to_onnx(self, name: str | Path | IO[bytes] = "model.onnx", overwrite: bool = False) -> Path:
        """Write the model, from its input to its raw output, as ONNX; preparing rows and softmax are not in it.

        onnxruntime runs the file beside the model on a few rows first; it is written only if they agree to 1e-5.
        Several outputs are named by their place: logits, output_0.

        Args:
            name: File name, relative to `path`, or a file-like object such as BytesIO.
            overwrite: Replace an existing file.

        Returns:
            The path of the file.

        Raises:
            SettingError: Without `pip install "onecycle[onnx]"`.
            ModelError: If the model cannot be written as ONNX, or its weights contain NaN.
            OutputError: If the file exists, or cannot be written.

        Example:
            >>> learn.to_onnx("digits.onnx")
        """
        from onecycle.export.onnx import write_onnx

        self._materialise()
        check_weights(self.model, "nothing was written")
        place = as_place(name, self.path)
        metadata = {"loss": loss_name(self.loss_func), "classes": self.classes}
        write_onnx(place, self.model, self._trace_rows(), overwrite, metadata)
        return place_name(place)

    def _meaning(self) -> dict[str, Any] | None:
        """Return what the model's inputs and outputs mean, as JSON values; None if nothing is known."""
        return None if self._source is None else describe_meaning(self._source)

    # --- outputs -----------------------------------------------------------------------------------------------------

    def _outputs(self, which: Any) -> tuple[Any, Any]:
        """Return the model's outputs and the targets for what `get_preds` takes."""
        return self._run_on(which)

    def _run_on(self, which: Any) -> tuple[Any, Any]:
        """Return the same, also for one row."""
        rows = self._as_rows(which)
        return self._run(self._loader(which).epoch(0) if rows is None else self._row_batches(rows))

    def _run(self, batches: Iterator[tuple[Any, Any]]) -> tuple[Any, Any]:
        with evaluating(self.model):
            outputs, targets = predict(self.model, batches, self._forward)
        numbers = [part for part in tensors_in(outputs) if part.is_floating_point() or part.is_complex()]
        if not numbers or any(bool(part.isnan().any()) for part in numbers):  # only then all weights are read
            check_weights(self.model, "every prediction would be NaN")
        return outputs, targets

    def _materialise(self) -> None:
        """Give the model's lazy layers their sizes, if it has any, with the first batch."""
        data = self._source if isinstance(self._source, DataBunch) else None
        materialise(self.model, self._forward, partial(data.train_dl.epoch, 0) if data is not None else None)

    def _single_output(self, outputs: Any) -> Any:
        """Return the predictions of the main output; all outputs of a regression that has none."""
        if self._is_regression() and self.target is None and _main_output(outputs) is None:
            return outputs
        return self.as_predictions(self.main_output(outputs))

    def _class_index(self, pred: Tensor) -> Tensor:
        """Return the index of the predicted class, or one for each position that has classes, as in an image."""
        self.check_predictions(pred)
        if pred.numel() == 1 and len(self.classes or [0]) > 1:
            if len(self.classes or []) == 2 and is_binary(self.loss_func):
                return (pred.flatten()[0] > LABEL_THRESHOLD).long()
            raise ModelError(
                f"the model returns one number for {len(self.classes or [])} classes, and its loss "
                f"({loss_name(self.loss_func)}) does not say what it means; get_preds returns the number"
            )
        if pred.ndim > 1 and not is_classification(self.loss_func):
            raise ModelError(
                f"the model returns {tuple(pred.shape)} for a row, and its loss ({loss_name(self.loss_func)}) does not "
                "say which dimension has the classes; get_preds returns the numbers"
            )
        return pred.argmax(0)

    # --- rows --------------------------------------------------------------------------------------------------------

    def _loader(self, which: SetName | Loader) -> Loader:
        """Return the loader of that name (train in order), or `which` itself. Raises DataError for anything else."""
        if isinstance(which, str):
            loader = self.data.dl("fix" if which == "train" else which)
        elif isinstance(which, DataLoader):
            loader = TorchLoader(which, self.device, seed=0)
        elif hasattr(which, "epoch"):
            loader = which
        else:
            raise DataError(
                f"{reprlib.repr(which)}, of type {type(which).__name__}, cannot be predicted; expected the name of a "
                "set, a loader, an array of rows, or for the model of a table raw rows"
            )
        if self._source is not None:
            check_rows(loader, self._source, which if isinstance(which, str) else type(which).__name__)
        return loader

    def _row_batches(self, rows: Any) -> Iterator[tuple[Any, None]]:
        """Yield batches of raw rows, converted as the loader of the training rows converts them."""
        specs = self._input_specs()
        for start in range(0, count_rows(rows) or 0, _BATCH_SIZE):
            batch = map_tensors(lambda x, i=start: x[i : i + _BATCH_SIZE].to(self.device, copy=True), rows)
            known = map_tensors(lambda _: None, rows) if specs is None else specs
            yield map_leaves(self._as_the_model_takes, batch, known), None

    def _as_the_model_takes(self, x: Tensor, spec: RowSpec | None) -> Tensor:
        is_byte = x.dtype in (torch.uint8, torch.bool)
        dtype = spec.dtype if spec is not None else torch.get_default_dtype() if is_byte else x.dtype
        if x.is_floating_point():
            return x.to(dtype) if dtype.is_floating_point else x
        if not dtype.is_floating_point:
            return x
        return x.to(dtype) if self.pixel_scale is None else x.to(dtype) / self.pixel_scale

    def _as_rows(self, which: Any) -> Any:
        """Return the model's input for raw rows, or None if `which` is not raw rows."""
        if isinstance(which, str) and which in ("train", "valid", "test", "fix"):
            return None
        features = self.features
        if features is not None:
            from onecycle.data.sources import table_of_rows
            from onecycle.tables.categories import UnseenValues

            table, unseen = table_of_rows(which, features.inputs, features.text_columns), UnseenValues()
            x = None if table is None else torch.from_numpy(features.transform(table, unseen=unseen))
            for message in unseen.messages():
                warn_user(message)
            return x
        if not isinstance(which, Tensor | np.ndarray | list | dict | tuple):
            return None
        rows = self._parts(which, "x", as_tensor)
        if len({len(part) for part in leaves_by_path(rows).values()}) > 1:
            raise DataError(f"x: its parts have {_lengths(rows)} rows; expected equal numbers")
        if not count_rows(rows):
            raise DataError("x has no rows; expected at least one")
        return rows

    def _one_row(self, row: Any) -> Any:
        """Return `row` as a batch of one. Raises DataError if it is something else."""
        if self.features is not None and isinstance(row, dict):
            return [row]
        if self.features is not None and not isinstance(row, Tensor | np.ndarray | tuple):
            return row

        def one(part: Any, name: str) -> Tensor:
            return as_tensor(part[None] if isinstance(part, Tensor) else [part], name)

        x, specs = self._parts(row, "row", one), self._input_specs()
        if specs is None or self.features is not None:
            return x
        return _reshaped(x, specs, is_only=True) if isinstance(specs, RowSpec) else map_leaves(_reshaped, x, specs)

    def _parts(self, value: Any, name: str, convert: Any) -> Any:
        """Return `value`, one input or as many as the model takes, as tensors that `convert(part, name)` makes.

        Raises DataError if it does not have the inputs that the model takes.
        """
        is_open = isinstance(value, tuple | dict) or (isinstance(value, list) and not _are_numbers(value))
        specs = RowSpec(None, torch.float32) if self.features is not None else self._input_specs(read=is_open)
        if isinstance(specs, RowSpec) or specs is None:
            if isinstance(specs, RowSpec) and isinstance(value, tuple | dict):
                example = "for example data.valid_ds[0][0]" if name == "row" else "without targets"
                raise DataError(f"{name} is a {type(value).__name__}; expected x alone, {example}")
            if not isinstance(value, tuple | dict):
                return convert(value, name)
            specs = [None] * len(value) if isinstance(value, tuple) else dict.fromkeys(value)
        names = iter([f"{name}{path}" for path in leaves_by_path(specs)])

        def converted(_: Any, part: Any) -> Any:
            return convert(part, next(names))

        try:
            return map_leaves(converted, specs, value)
        except OneCycleError:
            raise
        except (ValueError, KeyError) as error:
            keys = ", ".join(map(str, specs))
            expected = f"a dict with {keys}" if isinstance(specs, dict) else f"a tuple of {len(specs)} inputs"
            raise DataError(
                f"{name} is a {type(value).__name__}; expected {expected}, nested as the model was trained with"
            ) from error

    def _input_specs(self, read: bool = False) -> Any:
        """Return a `RowSpec` for each input, nested as the model takes them; None if they are not known.

        If the rows are not in memory, the first batch says it, once it was asked to be read.
        """
        source = self._source
        if isinstance(source, BundleInfo):
            if source.inputs is not None or source.row_dtype is None:
                return source.inputs
            is_byte = source.row_dtype in (torch.uint8, torch.bool)
            return RowSpec(source.row_shape, torch.get_default_dtype() if is_byte else source.row_dtype)
        if source is None:
            return None
        if is_in_memory(source.train_ds):
            x, _ = as_batch([tensor[:1] for tensor in source.train_ds.tensors])
            return map_tensors(lambda part: RowSpec(part.shape[1:], part.dtype), x)
        if type(self.model) in (MLP, TabularModel):
            return RowSpec(None, torch.get_default_dtype())
        if read and self._first_batch[0] is not source:
            specs = map_tensors(lambda part: RowSpec(None, part.dtype), self._example())
            is_known = all(isinstance(spec, RowSpec) for spec in leaves_by_path(specs).values())
            self._first_batch = source, specs if is_known else None
        return self._first_batch[1] if self._first_batch[0] is source else None

    def _example(self) -> Any:
        """Return the input of a batch of the data."""
        data = self.data
        x, _ = next(iter((data.fix_dl or data.valid_dl or data.train_dl).epoch(0)))
        return x

    def _trace_rows(self) -> list[Any]:
        """A few rows as the model's arguments: training rows if there are some."""
        if isinstance(self._source, DataBunch):
            x = map_tensors(lambda part: part[:_TRACE_ROWS], self._example())
            return x if isinstance(x, list) else [x]
        specs = self._input_specs()
        if specs is None or any(spec.shape is None for spec in leaves_by_path(specs).values()):
            raise DataError("the model was loaded without data, and the bundle does not say what its rows look like")
        generator = torch.Generator().manual_seed(0)

        def made(spec: RowSpec) -> Tensor:
            size, is_float = (_TRACE_ROWS, *(spec.shape or ())), spec.dtype.is_floating_point
            return (torch.rand(size, generator=generator) if is_float else torch.zeros(size)).to(spec.dtype)

        x = map_leaves(made, specs)
        return x if isinstance(x, list) else [x]

    def _is_multilabel(self) -> bool:
        return self.target is not None and self.target.task == "multilabel"

    def _is_regression(self) -> bool:
        return self.classes is None and not is_classification(self.loss_func)


def load_predictor(
    path: str | Path | IO[bytes],
    model: nn.Module | type[nn.Module] | None = None,
    device: str | torch.device | None = None,
) -> Predictor:
    """Load a bundle that `export` wrote. Nothing in it is unpickled or run while it is loaded.

    Args:
        path: The bundle: a folder, a .zip file, or a file-like object that stands where the bundle begins.
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


def read_checked_bundle(
    path: str | Path | IO[bytes], model: nn.Module | type[nn.Module] | None
) -> tuple[nn.Module, BundleInfo]:
    """Read a bundle and check that its preprocessing and its model belong together. Raises as `load_predictor` does."""
    place = as_place(path)
    module, info = read_bundle(place, model)
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
            f"{place_name(place)}: the model has {inputs:,} inputs and {outputs:,} outputs, which does not match the "
            "preprocessing; use an undamaged copy, or export the model again"
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


def _reshaped(x: Tensor, spec: RowSpec, is_only: bool = False) -> Tensor:
    """Return a batch of one row in the shape of the rows trained on. Raises DataError if it has other numbers.

    If it is not the only input, its shape must be that of those rows: inputs in another order are not accepted.
    """
    if spec.shape is None or x.shape[1:] == spec.shape:
        return x
    if not is_only or x.numel() != spec.shape.numel():
        hint = ": use get_preds for several rows" if x.shape[2:] == spec.shape else ""
        raise DataError(f"row has shape {tuple(x.shape[1:])}; expected one row of shape {tuple(spec.shape)}{hint}")
    return x.reshape(1, *spec.shape)  # for example an image if the model takes it flat


def _class_names(index: Any, names: list[Any]) -> Any:
    """Return the name of a class, or of each class in nested lists; its number if it has no name."""
    if isinstance(index, list):
        return [_class_names(item, names) for item in index]
    return names[index] if index < len(names) else index


def _main_output(outputs: Any) -> Tensor | None:
    parts = _tensors_by_path(outputs)
    called = [part for path, part in parts.items() if path.endswith((".logits", "['logits']"))]
    candidates = called or [*parts.values()]
    return candidates[0] if len(candidates) == 1 else None


def _tensors_by_path(outputs: Any) -> dict[str, Tensor]:
    return {path: part for path, part in leaves_by_path(outputs).items() if isinstance(part, Tensor)}


def _as_numbers(pred: Tensor) -> Any:
    return pred.squeeze().tolist()


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(value, int | float | np.number) for value in values)


def _lengths(rows: Any) -> str:
    return " and ".join(f"{len(part):,}" for part in leaves_by_path(rows).values())
