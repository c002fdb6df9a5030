"""Save model weights and optimizer state to a folder, and load them."""

import reprlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.core.archives import read_folder, write_folder
from onecycle.errors import FileError, ModelError
from onecycle.optim.optimizer import GroupedOptimizer

KIND = "checkpoint"


def save_checkpoint(folder: Path, model: nn.Module, opt: GroupedOptimizer | None, epochs_trained: int) -> None:
    """Write the state of the model and, if given, of the optimizer. An older checkpoint in `folder` is replaced.

    `epochs_trained` decides the batch order of the next epoch. Raises ModelError for a state that is not all tensors.
    """
    tensors: dict[str, dict[str, Tensor]] = {"model": weights_of(model)}
    state: dict[str, Any] = {"epochs_trained": epochs_trained}
    if opt is not None:
        tensors["optimizer"], state["optimizer"] = pack_optimizer(opt)
    write_folder(folder, KIND, tensors, state, replace=True)


def load_checkpoint(folder: Path, model: nn.Module, opt: GroupedOptimizer | None) -> tuple[bool, int]:
    """Load a saved state into `model` and `opt`.

    Returns whether the optimizer's state was loaded, and the epochs trained. The state of another optimizer, or of
    other layer groups, is ignored with a warning. Raises FileError for a missing or damaged folder and ModelError for
    another model's weights; nothing is changed then.
    """
    state, tensors = read_folder(folder, KIND)
    if "model" not in tensors:
        raise FileError(f"{folder}: holds no model")
    epochs = state.get("epochs_trained", 0)
    if type(epochs) is not int or not 0 <= epochs < 2**63:
        raise FileError(f"{folder}: epochs_trained is {reprlib.repr(epochs)}; expected a count")
    moments = None
    if opt is not None and "optimizer" in state:
        moments = unpack_optimizer(folder, state["optimizer"], tensors.get("optimizer", {}))
        if reason := _optimizer_mismatch(state["optimizer"], opt):
            moments = None
            warnings.warn(f"{folder}: only the weights are loaded; the optimizer's state is of {reason}", stacklevel=3)
    load_weights(model, tensors["model"], folder)
    if opt is not None and moments is not None:
        opt.load_moments(moments)
    return moments is not None, epochs


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state by name. Raises ModelError if files cannot hold it without code to load it."""
    state: dict[str, Any] = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"the model's {name} is of type {type(value).__name__}; expected a tensor, which can be saved without "
                "code: let get_extra_state return one, or use register_buffer"
            )
        if value.dtype is torch.complex128:
            raise ModelError(
                f"the model's {name} is complex128, which files (safetensors) cannot hold; use complex64, or two real "
                "tensors and torch.complex"
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


def pack_optimizer(opt: GroupedOptimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of an optimizer's state by name, and the rest as JSON values."""
    state = opt.state_dict()
    flat = {f"{index}/{key}": value for index, entry in state["state"].items() for key, value in entry.items()}
    tensors, scalars = split_tensors(flat)
    return tensors, {
        "name": type(opt.torch_opt).__name__,
        "param_groups": state["param_groups"],
        "scalars": scalars,
    }


def unpack_optimizer(folder: Path, values: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the state dict that `pack_optimizer` split. Raises FileError for anything else."""
    try:
        entries: dict[int, dict[str, Any]] = {}
        for name, value in [*tensors.items(), *values["scalars"].items()]:
            index, key = name.split("/", 1)
            entries.setdefault(int(index), {})[key] = value
        groups = [
            {key: tuple(value) if key == "betas" else value for key, value in group.items()}
            for group in values["param_groups"]
        ]
        if not all(isinstance(group["params"], list) and _are_betas(group.get("betas", (0, 0))) for group in groups):
            raise ValueError("its groups are damaged")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FileError(f"{folder}: the optimizer's state is not one that onecycle wrote ({error})") from error
    return {"state": entries, "param_groups": groups}


def split_tensors(values: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors among `values`, and the rest."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in values.items() if name not in tensors}


def _optimizer_mismatch(values: dict[str, Any], opt: GroupedOptimizer) -> str | None:
    """Return why a saved state does not fit `opt`, or None if it does."""
    if values.get("name") != (name := type(opt.torch_opt).__name__):
        return f"{values.get('name')}, the learner's is {name}"
    if [len(g["params"]) for g in values["param_groups"]] != [len(g["params"]) for g in opt.groups]:
        return "other layer groups, or of groups frozen differently"
    return None


def _are_betas(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(type(beta) in (int, float) for beta in value)
