"""A trained model as a bundle: a folder or zip file that predicts in another process, without pickle.

The library's own models are kept as their sizes, any other as a program (`program.py`), both with weights beside them.
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
from onecycle.core.folders import check_replaceable, read_folder, write_folder
from onecycle.core.models import architecture, build
from onecycle.errors import DataError, FileError, ModelError, SettingError
from onecycle.export.traced_model import TracedModel
from onecycle.export.zip_bundle import check_zip_place, is_zip, read_zip, write_zip

if TYPE_CHECKING:  # only the model of a table needs them, and they import pyarrow
    from onecycle.tables.features import Features
    from onecycle.tables.target import Target

_KIND = "bundle"
Rows: TypeAlias = Callable[[], list[Tensor]]


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle says of its model besides the weights.

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
        """The info as JSON values."""
        parts = {name: getattr(self, name) for name in ("features", "target")}
        return {**vars(self), **{name: part.to_dict() if part is not None else None for name, part in parts.items()}}


def check_bundle_place(path: Path, overwrite: bool) -> None:
    """Raises OutputError where a bundle cannot be written to `path` because of what is there."""
    (check_zip_place if is_zip(path) else check_replaceable)(path, _KIND, overwrite)


def export_bundle(path: Path, model: nn.Module, info: BundleInfo, overwrite: bool, rows: Rows) -> None:
    """Write `model` and what belongs to it to `path`. Raises OutputError where it exists, unless `overwrite`.

    A name that ends in .zip makes one file, any other a folder. `rows` gives a few rows that a model can be traced
    with; where that fails, only the weights are written, with a warning that says why.
    """
    check_bundle_place(path, overwrite)
    known = architecture(model)
    program, constants = _program(path, model, rows) if known is None else (None, {})
    about = {
        "architecture": known,
        "model_class": type(model).__qualname__,
        "info": info.to_dict(),
        **({"program": program} if program is not None else {}),
    }
    tensors: dict[str, Mapping[str, Tensor]] = {"model": model.state_dict()}
    if constants:
        tensors["constants"] = constants
    (write_zip if is_zip(path) else write_folder)(path, _KIND, tensors, about, overwrite)


def _program(path: Path, model: nn.Module, rows: Rows) -> tuple[dict[str, Any] | None, Mapping[str, Tensor]]:
    if isinstance(model, TracedModel):
        return model.description, model.constants
    from onecycle.export.tracing import UntraceableError, trace

    try:
        return trace(model, rows())
    except (UntraceableError, DataError) as reason:
        warnings.warn(
            f"{path}: only the weights of {type(model).__qualname__} are written, so that load_bundle and load_learner "
            f"will ask for its class: {reason}",
            stacklevel=4,
        )
        return None, {}


def read_bundle(path: Path, model: nn.Module | type[nn.Module] | None = None) -> tuple[nn.Module, BundleInfo]:
    """The model of a bundle, in eval mode, and what belongs to it.

    `model` is the class (called without arguments) or an instance to fill; the library's own models and programs need
    none. Raises FileError for a missing or damaged bundle and ModelError for a model that does not belong to it.
    """
    state, tensors = (read_zip if is_zip(path) else read_folder)(path, _KIND)
    if "model" not in tensors:
        raise FileError(f"{path}: not a bundle that onecycle wrote (model.safetensors missing)")
    info, weights = _info(path, state.get("info")), tensors["model"]
    known = state.get("architecture")
    if known is not None and not isinstance(known, dict):
        raise _damaged(path, "architecture", known)
    if model is None and not known and "program" in state:
        return TracedModel(state["program"], weights, tensors.get("constants", {}), str(path)), info
    if model is None or (isinstance(model, type) and known and known.get("name") == model.__name__):
        if not known:
            raise ModelError(
                f"{path}: holds a {state.get('model_class')}, whose code is not in the bundle; "
                f"give the class: load_learner(path, model={state.get('model_class')})"
            )
        model = _built(path, known, weights)
    elif isinstance(model, type):
        try:
            model = model()
        except TypeError as error:
            raise ModelError(
                f"{model.__name__}() cannot be made without arguments ({error}); give an instance"
            ) from error
    load_weights(model, weights, path)
    return model.eval(), info


def _built(folder: Path, known: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """One of the library's own models. Its sizes come from a file, so they may not take more memory than it has."""
    try:
        return build(known, weights=sum(tensor.numel() for tensor in weights.values()))
    except SettingError as error:
        raise FileError(f"{folder}: {error}; take an undamaged copy, or export the model again") from error


def _info(folder: Path, found: Any) -> BundleInfo:
    """What a bundle says of its model, its types checked: it comes from a file."""
    optional = {"features", "target"}  # not in bundles of 0.1.0
    names = [field.name for field in fields(BundleInfo)]
    missing = [name for name in names if name not in optional and not (isinstance(found, dict) and name in found)]
    if missing:
        raise FileError(f"{folder}: not a bundle that onecycle wrote ({', '.join(missing)} missing)")
    about: dict[str, Any] = {name: found.get(name) for name in names}
    for name, fits in _FITS.items():
        if (about[name] is not None or name not in _MAY_BE_NONE) and not fits(about[name]):
            raise _damaged(folder, f"info.{name}", about[name])
    try:
        if about["features"] is not None:
            from onecycle.tables.features import Features

            about["features"] = Features.from_dict(about["features"])
        if about["target"] is not None:
            from onecycle.tables.target import Target

            about["target"] = Target.from_dict(about["target"])
    except DataError as error:
        raise FileError(f"{folder}: {error}") from error
    return BundleInfo(**about)


def _damaged(folder: Path, part: str, found: Any) -> FileError:
    return FileError(
        f"{folder}: {part} is {reprlib.repr(found)}, which onecycle never writes; take an undamaged copy, or export "
        "the model again"
    )


def _is_shape(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(size, int) and 0 < size < 2**31 for size in found)


_MAY_BE_NONE = ("classes", "input_shape", "input_dtype", "pixel_scale", "features", "target")
_FITS: dict[str, Callable[[Any], bool]] = {
    "loss": lambda found: isinstance(found, str),
    "metrics": lambda found: isinstance(found, list) and all(isinstance(name, str) for name in found),
    "classes": lambda found: isinstance(found, list),
    "input_shape": _is_shape,
    "input_dtype": lambda found: isinstance(found, str) and isinstance(getattr(torch, found, None), torch.dtype),
    "pixel_scale": lambda found: isinstance(found, int | float) and 0 < found < 2**31,
    "versions": lambda found: isinstance(found, dict),
    "features": lambda found: isinstance(found, dict),
    "target": lambda found: isinstance(found, dict),
}
