"""A trained model as a bundle: a folder that predicts in another process, without pickle."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import nn

from onecycle.core.errors import FileError, ModelError
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
    known = state.get("architecture")
    if model is None or (isinstance(model, type) and known and known.get("name") == model.__name__):
        if not known:
            raise ModelError(
                f"{folder}: holds a {state.get('model_class')}, whose code is not in the bundle; "
                f"give the class: load_learner(path, model={state.get('model_class')})"
            )
        model = build(known)
    elif isinstance(model, type):
        try:
            model = model()
        except TypeError as error:
            raise ModelError(
                f"{model.__name__}() cannot be made without arguments ({error}); give an instance"
            ) from error
    try:
        found = state["info"]
        optional = {"features", "target"}  # not in bundles of 0.1.0
        names = [field.name for field in fields(BundleInfo) if field.name in found or field.name not in optional]
        info = BundleInfo(**{name: found[name] for name in names})
        weights = tensors["model"]
    except (KeyError, TypeError) as error:
        raise FileError(f"{folder}: not a bundle that onecycle wrote ({error} is missing)") from error
    load_weights(model, weights, folder)
    return model.eval(), info
