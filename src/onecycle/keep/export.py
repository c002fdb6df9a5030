"""A trained model as a bundle: a folder that predicts in another process, without pickle."""

import reprlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.core.errors import FileError, ModelError, SettingError
from onecycle.core.models import architecture, build
from onecycle.keep.checkpoint import load_weights
from onecycle.keep.folder import check_place, read_folder, write_folder

_KIND = "bundle"


@dataclass(frozen=True)
class BundleInfo:
    """What a bundle says of its model besides the weights."""

    loss: str  # the loss function's name, which decides the activation
    metrics: list[str]
    classes: list[Any] | None
    input_shape: list[int] | None  # of one row
    input_dtype: str | None  # as torch names it, for example float32
    pixel_scale: float | None  # what the pixels of an image are divided by; None where the rows are no images
    versions: dict[str, str]
    features: dict[str, Any] | None = None  # the preprocessing of a table's rows, as its `to_dict` wrote it
    target: dict[str, Any] | None = None  # the same of what is predicted


def check_bundle_place(folder: Path, overwrite: bool) -> None:
    """Raises OutputError where a bundle cannot be written to `folder` because of what is there."""
    check_place(folder, _KIND, overwrite)


def export_bundle(folder: Path, model: nn.Module, info: BundleInfo, overwrite: bool) -> None:
    """Write `model` and what belongs to it to `folder`. Raises OutputError where it exists, unless `overwrite`."""
    about = {"architecture": architecture(model), "model_class": type(model).__qualname__, "info": asdict(info)}
    write_folder(folder, _KIND, {"model": model.state_dict()}, about, replace=overwrite)


def load_bundle(folder: Path, model: nn.Module | type[nn.Module] | None = None) -> tuple[nn.Module, BundleInfo]:
    """The model of a bundle, in eval mode, and what belongs to it.

    `model` is the class (called without arguments) or an instance to fill; the library's own models need none. Raises
    FileError for a missing or damaged bundle and ModelError for a model that does not belong to it.
    """
    state, tensors = read_folder(folder, _KIND)
    if "model" not in tensors:
        raise FileError(f"{folder}: not a bundle that onecycle wrote (model.safetensors missing)")
    info, weights = _info(folder, state.get("info")), tensors["model"]
    known = state.get("architecture")
    if known is not None and not isinstance(known, dict):
        raise _damaged(folder, "architecture", known)
    if model is None or (isinstance(model, type) and known and known.get("name") == model.__name__):
        if not known:
            raise ModelError(
                f"{folder}: holds a {state.get('model_class')}, whose code is not in the bundle; "
                f"give the class: load_learner(path, model={state.get('model_class')})"
            )
        model = _built(folder, known, weights)
    elif isinstance(model, type):
        try:
            model = model()
        except TypeError as error:
            raise ModelError(
                f"{model.__name__}() cannot be made without arguments ({error}); give an instance"
            ) from error
    load_weights(model, weights, folder)
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
