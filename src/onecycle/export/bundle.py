"""A trained model as a bundle: a folder or zip file that predicts in another process, without pickle.

The library's own models are described by their sizes, any other by its traced operators (`traced_model.py`); the
weights are beside them.
"""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from onecycle.checkpoint.weights import load_weights
from onecycle.core.archives import Place, check_replaceable, place_name, read_archive, write_archive
from onecycle.core.device import preserve_rng_state
from onecycle.core.models import architecture, build
from onecycle.errors import DataError, FileError, ModelError, SettingError, printable, warn_user
from onecycle.export.traced_model import TracedModel

if TYPE_CHECKING:  # only the model of a table needs them, and they import pyarrow
    from onecycle.tables.features import Features
    from onecycle.tables.target import Target

_KIND = "bundle"
Rows: TypeAlias = Callable[[], list[Any]]


class RowSpec:
    """What a row is like where a model takes a tensor: its shape, or None if it may vary, and its dtype."""

    def __init__(self, shape: Sequence[int] | None, dtype: torch.dtype) -> None:
        self.shape, self.dtype = None if shape is None else torch.Size(shape), dtype


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
        inputs: A `RowSpec` for each input, nested as the model takes them; None if it takes one tensor, or if they are
            not known.
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
    inputs: Any = None

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
        inputs = {"inputs": _inputs_to_json(self.inputs)} if self.inputs is not None else {}
        values = {name: value for name, value in vars(self).items() if name != "inputs"}
        return {**values, "features": features, "target": target, **inputs}


def check_bundle_path(path: Path, overwrite: bool) -> None:
    """Raise OutputError if `path` exists and is not a bundle, or may not be replaced."""
    check_replaceable(path, _KIND, overwrite)


def export_bundle(place: Place, model: nn.Module, info: BundleInfo, overwrite: bool, rows: Rows) -> None:
    """Write `model` and `info`: to one file if its name ends in .zip, or to a file-like object, else to a folder.

    `rows` returns a few rows that a model can be traced with; if that fails, only the weights are written, with a
    warning that says why. Raises OutputError if the path exists, unless `overwrite` is set.
    """
    if isinstance(place, Path):
        check_bundle_path(place, overwrite)
    known = architecture(model)
    if known is not None and not _is_rebuilt(model, known, rows):
        known = None
    program, constants = _trace(place_name(place), model, rows) if known is None else (None, {})
    state = {
        "architecture": known,
        "model_class": type(model).__qualname__,
        "info": info.to_dict(),
        **({"program": program} if program is not None else {}),
    }
    tensors: dict[str, Mapping[str, Tensor]] = {"model": model.state_dict()}
    if constants:
        tensors["constants"] = constants
    write_archive(place, _KIND, tensors, state, overwrite)


def _is_rebuilt(model: nn.Module, description: dict[str, Any], rows: Rows) -> bool:
    """Whether a model that is built from the description, with these weights, returns the same numbers bit for bit."""
    try:
        given = rows()
    except Exception:  # there are none, or whatever a user's data set raises: its layers are those of the description
        return True
    device = next(model.parameters()).device
    with preserve_rng_state(device):  # of the fresh weights
        rebuilt = build(description).to(device).eval()
    load_weights(rebuilt, model.state_dict(), Path())
    given = [row.to(device) for row in given]
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            expected, actual = model.eval()(*given), rebuilt(*given)
    finally:
        for module, mode in modes:
            module.training = mode
    return torch.allclose(expected, actual, rtol=0, atol=0, equal_nan=True)


def _trace(path: Path, model: nn.Module, rows: Rows) -> tuple[dict[str, Any] | None, Mapping[str, Tensor]]:
    if isinstance(model, TracedModel):
        return model.description, model.constants
    from onecycle.export.tracing import UntraceableError, trace

    try:
        return trace(model, rows())
    except (UntraceableError, DataError) as reason:
        warn_user(
            f"{printable(str(path))}: only the weights of {type(model).__qualname__} are written, so that "
            f"load_predictor and load_learner will ask for its class: {reason}",
        )
        return None, {}


def read_bundle(place: Place, model: nn.Module | type[nn.Module] | None = None) -> tuple[nn.Module, BundleInfo]:
    """Return the model of a bundle, in eval mode, and what the bundle says of it.

    `model` is the class (called without arguments) or an instance to fill; the library's own and traced models need
    none. Raises FileError for a missing or damaged bundle and ModelError for a model that the weights do not fit.
    """
    (state, tensors), path = read_archive(place, _KIND), place_name(place)
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
        info["inputs"] = _inputs_from_json(info["inputs"]) if info["inputs"] is not None else None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise _damaged(path, "info.inputs", info["inputs"]) from None
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


def _inputs_to_json(inputs: Any) -> Any:
    if isinstance(inputs, list):
        return [_inputs_to_json(item) for item in inputs]
    if isinstance(inputs, dict):
        return {"dict": {name: _inputs_to_json(item) for name, item in inputs.items()}}
    return {"shape": None if inputs.shape is None else list(inputs.shape), "dtype": str(inputs.dtype)[6:]}


def _inputs_from_json(value: Any) -> Any:
    """Return the specs that `_inputs_to_json` wrote. Raises ValueError and others for anything else."""
    if isinstance(value, list):
        return [_inputs_from_json(item) for item in value]
    if "dict" in value:
        return {name: _inputs_from_json(item) for name, item in value["dict"].items()}
    if not all(_IS_VALID[name](value[key]) or value[key] is None for name, key in _PARTS.items()):
        raise ValueError("no shape and dtype")
    return RowSpec(value["shape"], getattr(torch, value["dtype"]))


def _damaged(path: Path, name: str, value: Any) -> FileError:
    return FileError(
        f"{path}: {name} is {reprlib.repr(value)}, which onecycle never writes; take an undamaged copy, or export "
        "the model again"
    )


_REQUIRED = ("loss", "metrics", "versions")
_OPTIONAL = ("features", "target", "inputs")  # missing in the first bundles of 0.1.0
_PARTS = {"input_shape": "shape", "input_dtype": "dtype"}
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
    "inputs": lambda value: isinstance(value, list | dict),
}
