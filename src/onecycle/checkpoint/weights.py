"""Save model weights and optimizer state to a folder, and load them."""

import reprlib
import warnings
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from onecycle.core.archives import Place, place_name, read_archive, write_archive, write_folder
from onecycle.errors import FileError, ModelError, SettingError
from onecycle.optim.optimizer import GroupedOptimizer

KIND = "checkpoint"
_WITH_NAN = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)


def save_checkpoint(folder: Place, model: nn.Module, opt: GroupedOptimizer | None, epochs_trained: int) -> None:
    """Write the state of the model and, if given, of the optimizer, to a folder or a file-like object.

    An older checkpoint in `folder` is replaced.
    `epochs_trained` decides the batch order of the next epoch. Raises ModelError for a state that is not all tensors.
    """
    tensors: dict[str, dict[str, Tensor]] = {"model": weights_of(model)}
    state: dict[str, Any] = {"epochs_trained": epochs_trained}
    if opt is not None:
        tensors["optimizer"], state["optimizer"] = pack_optimizer(opt, model)
    if isinstance(folder, Path):
        write_folder(folder, KIND, tensors, state, replace=True)
    else:
        write_archive(folder, KIND, tensors, state, replace=True)


def load_checkpoint(place: Place, model: nn.Module, opt: GroupedOptimizer | None) -> tuple[bool, int]:
    """Load a saved state into `model` and `opt`.

    Returns whether the optimizer's state was loaded, and the epochs trained. The state of another optimizer, or of
    other layer groups, is ignored with a warning. Raises FileError for a missing or damaged folder and ModelError for
    another model's weights; nothing is changed then.
    """
    (state, tensors), folder = read_archive(place, KIND), place_name(place)
    if "model" not in tensors:
        raise FileError(f"{folder}: holds no model")
    epochs = state.get("epochs_trained", 0)
    if type(epochs) is not int or not 0 <= epochs < 2**63:
        raise FileError(f"{folder}: epochs_trained is {reprlib.repr(epochs)}; expected a count")
    moments = None
    if opt is not None and "optimizer" in state:
        try:
            moments = unpack_optimizer(folder, state["optimizer"], tensors.get("optimizer", {}), opt, model)
        except SettingError as error:
            warnings.warn(f"{folder}: only the weights are loaded; {error}", stacklevel=3)
    load_weights(model, tensors["model"], folder)
    if opt is not None and moments is not None:
        opt.load_moments(moments)
    return moments is not None, epochs


def check_weights(model: nn.Module, consequence: str) -> None:
    """Raise ModelError if a parameter contains NaN; the message says which, and the consequence."""
    if found := find_nan(model):
        raise ModelError(
            f"the model's weights contain NaN ({found}), as a step with a loss of NaN leaves them: {consequence}; load "
            "earlier weights (learn.load), or train a new model with a lower learning rate"
        )


def find_nan(model: nn.Module) -> str | None:
    """Return which parameter is the first that contains NaN, or None if none does."""
    parameters = {name: p.detach() for name, p in model.named_parameters() if not is_lazy(p) and p.dtype in _WITH_NAN}
    suspects = [tensor.sum().isnan() for tensor in parameters.values()]  # one pass, no copy; inf - inf is looked at
    if not suspects or not bool(torch.stack([suspect.to(suspects[0].device) for suspect in suspects]).any()):
        return None
    counts = ((name, int(tensor.isnan().sum()), tensor.numel()) for name, tensor in parameters.items())
    return next((f"first in {name}: {count:,} of {size:,} numbers" for name, count, size in counts if count), None)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state by name. Raises ModelError if not all of it can be saved without code."""
    state: dict[str, Any] = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"the model's {name} is of type {type(value).__name__}; expected a tensor, which can be saved without "
                "code: let get_extra_state return one, or use register_buffer"
            )
        if value.dtype is torch.complex128 or value.layout is not torch.strided:
            kind = "complex128" if value.layout is torch.strided else str(value.layout).removeprefix("torch.")
            raise ModelError(
                f"the model's {name} is {kind}, which safetensors files cannot hold; expected dense numbers: use "
                "complex64, or to_dense()"
            )
    return state


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Load `weights` into `model`. Raises ModelError, with the names that differ, if they are another model's."""
    own = weights_of(model)
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or unknown:
        differences = [f"the model's {', '.join(missing)} missing in it"] if missing else []
        differences += [f"it has {', '.join(unknown)} that the model lacks"] if unknown else []
        raise ModelError(f"{source}: weights of another model ({'; '.join(differences)})")
    for name, tensor in own.items():
        if tensor.shape != weights[name].shape:
            raise ModelError(
                f"{source}: {name} has shape {tuple(weights[name].shape)}; the model's has {tuple(tensor.shape)}"
            )
    model.load_state_dict(weights)


def pack_optimizer(opt: GroupedOptimizer, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of an optimizer's state by name, and the rest as JSON values.

    The state is that of the parameters which are trainable in `model` now.
    """
    with suppress(SettingError):  # nothing is trainable: the next fit says so
        opt.follow(model, is_shown=False)
    state = opt.state_dict()
    flat = {f"{index}/{key}": value for index, entry in state["state"].items() for key, value in entry.items()}
    tensors, scalars = split_tensors(flat)
    return tensors, {
        "name": type(opt.torch_opt).__name__,
        "param_groups": state["param_groups"],
        "parameters": _names_in(opt, model),
        "scalars": scalars,
    }


def unpack_optimizer(
    folder: Path, values: dict[str, Any], tensors: dict[str, Tensor], opt: GroupedOptimizer, model: nn.Module
) -> dict[str, Any]:
    """Return the state dict that `pack_optimizer` split, in the order in which `opt` has the parameters of `model`.

    Raises SettingError for the state of another optimizer or of other layer groups, FileError for anything else.
    """
    try:
        entries: dict[int, dict[str, Any]] = {}
        for name, value in [*tensors.items(), *values["scalars"].items()]:
            index, key = name.split("/", 1)
            entries.setdefault(int(index), {})[key] = value
        groups = [
            {key: tuple(value) if key == "betas" else value for key, value in group.items()}
            for group in values["param_groups"]
        ]
        indices = [index for group in groups for index in group["params"]]
        if indices != list(range(len(indices))) or not all(_are_betas(group.get("betas", (0, 0))) for group in groups):
            raise ValueError("its groups are damaged")
        for group, own_group in zip(groups, opt.groups, strict=False):
            if wrong := [key for key, value in group.items() if not _is_like(value, own_group.get(key), key)]:
                raise ValueError(f"param_groups: {wrong[0]} is {reprlib.repr(group[wrong[0]])}")
        own = _names_in(opt, model)
        saved = values.get("parameters", own)  # earlier versions wrote no names: theirs are in the order of the model
        mismatch = _optimizer_mismatch(values, saved, opt, own)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FileError(f"{folder}: the optimizer's state is not one that onecycle wrote ({error})") from error
    if mismatch is not None:
        raise SettingError(f"the optimizer's state is of {mismatch}")
    for group, saved_names, own_names in zip(groups, saved, own, strict=True):
        index_of = dict(zip(saved_names, group["params"], strict=True))
        group["params"] = [index_of[name] for name in own_names]
    placed = [
        (n, i) for group, names in zip(groups, own, strict=True) for n, i in zip(names, group["params"], strict=True)
    ]
    check_moments(folder, opt, model, [(n, key, value) for n, i in placed for key, value in entries.get(i, {}).items()])
    return {"state": entries, "param_groups": groups}


def _is_like(value: Any, own: Any, key: str) -> bool:
    """Whether a setting of a saved group is of the kind of the optimizer's own: a flag, or a number."""
    if key == "params":
        return True
    if isinstance(own, bool):
        return isinstance(value, bool) or (value is None and key in ("foreach", "fused"))
    if isinstance(own, tuple):
        return isinstance(value, tuple) and all(map(_is_like, value, own, [key] * len(own)))
    if isinstance(own, int | float):
        return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)
    return True


def check_moments(folder: Path, opt: GroupedOptimizer, model: nn.Module, state: Iterable[tuple[str, str, Any]]) -> None:
    """Raise FileError if a value of a saved state, given by parameter and key, has not the shape that `opt` expects.

    The kernels of torch.optim do not look: they would read and write beyond the end of a tensor that is too small.
    """
    parameters = dict(model.named_parameters())
    for name, key, value in state:
        if name not in parameters:
            raise FileError(f"{folder}: holds the optimizer's state of {name}, which the model lacks")
        expected = opt.state_shape(key, parameters[name])
        found = tuple(value.shape) if isinstance(value, Tensor) else () if isinstance(value, int | float) else None
        if expected is not None and value is not None and found != expected:
            raise FileError(
                f"{folder}: the optimizer's {key} of {name} "
                f"{'is not a tensor' if found is None else f'has shape {found}'}; expected shape {expected}"
            )


def split_tensors(values: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors among `values`, and the rest."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in values.items() if name not in tensors}


def _names_in(opt: GroupedOptimizer, model: nn.Module) -> list[list[str]]:
    """Return the names in `model` of the parameters in each group; "" for one that is not in the model."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[names.get(id(parameter), "") for parameter in group["params"]] for group in opt.groups]


def _optimizer_mismatch(values: dict[str, Any], saved: Any, opt: GroupedOptimizer, own: list[list[str]]) -> str | None:
    """Return why a saved state of parameters of these names does not fit `opt`, or None if it does."""
    if values.get("name") != (name := type(opt.torch_opt).__name__):
        return f"{values.get('name')}, the learner's is {name}"
    sizes = [len(group["params"]) for group in values["param_groups"]]
    if sizes != [len(names) for names in own] or [sorted(names) for names in saved] != [sorted(names) for names in own]:
        return "other layer groups, or of groups frozen differently"
    return None


def _are_betas(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(type(beta) in (int, float) for beta in value)
