"""A trained model as a bundle: a folder or zip file that predicts in another process, without pickle.

The library's own models are described by their sizes, any other by its traced operators (`traced_model.py`); the
weights are beside them.
"""

import reprlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from onecycle.checkpoint.weights import load_weights
from onecycle.core.archives import check_replaceable, is_zip, read_folder, read_zip, write_folder, write_zip
from onecycle.core.models import architecture, build
from onecycle.errors import DataError, FileError, ModelError, SettingError
from onecycle.export.traced_model import TracedModel

if TYPE_CHECKING:  # only the model of a table needs them, and they import pyarrow
    from onecycle.tables.features import Features
    from onecycle.tables.target import Target

_KIND = "bundle"
Rows: TypeAlias = Callable[[], list[Tensor]]


@dataclass(frozen=True)
class BundleInfo:
    """The description of a model in a bundle, besides its weights.

    Attributes:
        loss: Name of the loss function, which decides how outputs become predictions.
        metrics: Names of the metrics.
        classes: Names of the classes or labels, or None for a regression.
        input_shape: Shape of one row, or None if it is not known.
        input_dtype: dtype of a row as torch names it, for example "float32".
        pixel_scale: What pixels are divided by, or None if the rows are not images.
        versions: Versions of Python and the libraries.
        features: How rows of a table become the model's input, or None.
        target: What is predicted, if the data came from a table.
    """

    loss: str
    metrics: list[str]
    classes: list[Any] | None
    input_shape: list[int] | None
    input_dtype: str | None
    pixel_scale: float | None
    versions: dict[str, str]
    features: "Features | None" = None
    target: "Target | None" = None

    @property
    def row_shape(self) -> torch.Size | None:
        """Shape of one row, or None if it is not known."""
        return torch.Size(self.input_shape) if self.input_shape is not None else None

    @property
    def row_dtype(self) -> torch.dtype | None:
        """dtype of a row, or None if it is not known."""
        return getattr(torch, self.input_dtype) if self.input_dtype else None

    def to_dict(self) -> dict[str, Any]:
        """Return the info as JSON values."""
        features = self.features.to_dict() if self.features is not None else None
        target = self.target.to_dict() if self.target is not None else None
        return {**vars(self), "features": features, "target": target}


def check_bundle_path(path: Path, overwrite: bool) -> None:
    """Raise OutputError if `path` exists and is not a bundle, or may not be replaced."""
    check_replaceable(path, _KIND, overwrite)


def export_bundle(path: Path, model: nn.Module, info: BundleInfo, overwrite: bool, rows: Rows) -> None:
    """Write `model` and `info` to `path`: one file if its name ends in .zip, else a folder.

    `rows` returns a few rows that a model can be traced with; if that fails, only the weights are written, with a
    warning that says why. Raises OutputError if `path` exists, unless `overwrite` is set.
    """
    check_bundle_path(path, overwrite)
    known = architecture(model)
    program, constants = _trace(path, model, rows) if known is None else (None, {})
    state = {
        "architecture": known,
        "model_class": type(model).__qualname__,
        "info": info.to_dict(),
        **({"program": program} if program is not None else {}),
    }
    tensors: dict[str, Mapping[str, Tensor]] = {"model": model.state_dict()}
    if constants:
        tensors["constants"] = constants
    (write_zip if is_zip(path) else write_folder)(path, _KIND, tensors, state, overwrite)


def _trace(path: Path, model: nn.Module, rows: Rows) -> tuple[dict[str, Any] | None, Mapping[str, Tensor]]:
    if isinstance(model, TracedModel):
        return model.description, model.constants
    from onecycle.export.tracing import UntraceableError, trace

    try:
        return trace(model, rows())
    except (UntraceableError, DataError) as reason:
        warnings.warn(
            f"{path}: only the weights of {type(model).__qualname__} are written, so that load_predictor and "
            f"load_learner will ask for its class: {reason}",
            stacklevel=4,
        )
        return None, {}


def read_bundle(path: Path, model: nn.Module | type[nn.Module] | None = None) -> tuple[nn.Module, BundleInfo]:
    """Return the model of a bundle, in eval mode, and what the bundle says of it.

    `model` is the class (called without arguments) or an instance to fill; the library's own and traced models need
    none. Raises FileError for a missing or damaged bundle and ModelError for a model that the weights do not fit.
    """
    state, tensors = (read_zip if is_zip(path) else read_folder)(path, _KIND)
    if "model" not in tensors:
        raise FileError(f"{path}: not a bundle that onecycle wrote (model.safetensors missing)")
    info, weights = _read_info(path, state.get("info")), tensors["model"]
    known = state.get("architecture")
    if known is not None and not isinstance(known, dict):
        raise _damaged(path, "architecture", known)
    if model is None and not known and "program" in state:
        return TracedModel(state["program"], weights, tensors.get("constants", {}), str(path)), info
    if known and (model is None or (isinstance(model, type) and known.get("name") == model.__name__)):
        try:  # its sizes come from a file, so they may not take more memory than its weights
            model = build(known, n_weights=sum(tensor.numel() for tensor in weights.values()))
        except SettingError as error:
            raise FileError(f"{path}: {error}; take an undamaged copy, or export the model again") from error
    elif model is None:
        raise ModelError(
            f"{path}: holds a {state.get('model_class')}, whose code is not in the bundle; "
            f"give the class: load_learner(path, model={state.get('model_class')})"
        )
    elif isinstance(model, type):
        try:
            model = model()
        except TypeError as error:
            raise ModelError(
                f"{model.__name__}() cannot be made without arguments ({error}); give an instance"
            ) from error
    load_weights(model, weights, path)
    return model.eval(), info


def _read_info(path: Path, values: Any) -> BundleInfo:
    """Return the info of a bundle. Raises FileError if its values, which come from a file, do not have their types."""
    names = [field.name for field in fields(BundleInfo)]
    missing = [name for name in names if name not in _OPTIONAL and not (isinstance(values, dict) and name in values)]
    if missing:
        raise FileError(f"{path}: not a bundle that onecycle wrote ({', '.join(missing)} missing)")
    info: dict[str, Any] = {name: values.get(name) for name in names}
    for name, is_valid in _IS_VALID.items():
        if not (is_valid(info[name]) or (info[name] is None and name not in _REQUIRED)):
            raise _damaged(path, f"info.{name}", info[name])
    try:
        if info["features"] is not None:
            from onecycle.tables.features import Features

            info["features"] = Features.from_dict(info["features"])
        if info["target"] is not None:
            from onecycle.tables.target import Target

            info["target"] = Target.from_dict(info["target"])
    except DataError as error:
        raise FileError(f"{path}: {error}") from error
    return BundleInfo(**info)


def _damaged(path: Path, name: str, value: Any) -> FileError:
    return FileError(
        f"{path}: {name} is {reprlib.repr(value)}, which onecycle never writes; take an undamaged copy, or export "
        "the model again"
    )


_REQUIRED = ("loss", "metrics", "versions")
_OPTIONAL = ("features", "target")  # missing in the first bundles of 0.1.0
_IS_VALID: dict[str, Callable[[Any], bool]] = {
    "loss": lambda value: isinstance(value, str),
    "metrics": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "classes": lambda value: isinstance(value, list),
    "input_shape": lambda value: (
        isinstance(value, list) and all(isinstance(size, int) and 0 < size < 2**31 for size in value)
    ),
    "input_dtype": lambda value: isinstance(value, str) and isinstance(getattr(torch, value, None), torch.dtype),
    "pixel_scale": lambda value: isinstance(value, int | float) and 0 < value < 2**31,
    "versions": lambda value: isinstance(value, dict),
    "features": lambda value: isinstance(value, dict),
    "target": lambda value: isinstance(value, dict),
}
