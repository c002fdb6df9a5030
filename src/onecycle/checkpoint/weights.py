"""Weights and optimizer state to a folder and back."""

import reprlib
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from onecycle.core.folders import read_folder, write_folder
from onecycle.errors import FileError, ModelError
from onecycle.optim.optimizer import GroupedOptimizer

KIND = "checkpoint"


def save_checkpoint(folder: Path, model: nn.Module, opt: GroupedOptimizer | None, epochs_trained: int) -> None:
    """Write the model's state and, where given, the optimizer's. An older checkpoint of that name is replaced.

    `epochs_trained` decides the batch order of the next epoch. Raises ModelError for a model that cannot be kept.
    """
    tensors: dict[str, dict[str, Tensor]] = {"model": weights_of(model)}
    state: dict[str, Any] = {"epochs_trained": epochs_trained}
    if opt is not None:
        tensors["optimizer"], state["optimizer"] = optimizer_parts(opt)
    write_folder(folder, KIND, tensors, state, replace=True)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's state by name. Raises ModelError where some of it is no tensor: only code could put that back."""
    state: dict[str, Any] = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"the model's {name} is of type {type(value).__name__}; expected a tensor, which can be kept without "
                "code: let get_extra_state give one, or use register_buffer"
            )
    return state


def load_checkpoint(folder: Path, model: nn.Module, opt: GroupedOptimizer | None) -> tuple[bool, int]:
    """Put a saved state into `model` and `opt`: whether the optimizer's was there too, and the epochs trained.

    The state of another optimizer, or of other layer groups, is left out with a warning. Raises FileError for a
    missing or damaged folder, ModelError for one of another model. Nothing is changed then.
    """
    state, tensors = read_folder(folder, KIND)
    if "model" not in tensors:
        raise FileError(f"{folder}: holds no model")
    epochs = state.get("epochs_trained", 0)
    if type(epochs) is not int or not 0 <= epochs < 2**63:
        raise FileError(f"{folder}: epochs_trained is {reprlib.repr(epochs)}; expected a count")
    saved = None
    if opt is not None and "optimizer" in state:
        saved = optimizer_state(folder, state["optimizer"], tensors.get("optimizer", {}))
        if reason := _other_optimizer(state["optimizer"], opt):
            saved = None
            warnings.warn(f"{folder}: only the weights are loaded; the optimizer's state is of {reason}", stacklevel=3)
    load_weights(model, tensors["model"], folder)
    if opt is not None and saved is not None:
        opt.load_moments(saved)
    return saved is not None, epochs


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Put `weights` into `model`; ModelError, with the names that differ, where they are another model's."""
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


def _other_optimizer(about: dict[str, Any], opt: GroupedOptimizer) -> str | None:
    """Why a saved state does not belong to `opt`, or None where it does."""
    if about.get("name") != (name := type(opt.torch_opt).__name__):
        return f"{about.get('name')}, the learner's is {name}"
    if [len(g["params"]) for g in about["param_groups"]] != [len(g["params"]) for g in opt.groups]:
        return "other layer groups, or of groups frozen differently"
    return None


def optimizer_parts(opt: GroupedOptimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of an optimizer's state by name, and the rest as JSON has it."""
    saved = opt.state_dict()
    flat = {f"{index}/{key}": value for index, entry in saved["state"].items() for key, value in entry.items()}
    tensors, scalars = split_tensors(flat)
    about = {"name": type(opt.torch_opt).__name__, "param_groups": saved["param_groups"], "scalars": scalars}
    return tensors, about


def _are_betas(found: Any) -> bool:
    return isinstance(found, tuple) and len(found) == 2 and all(type(beta) in (int, float) for beta in found)


def split_tensors(named: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors among `named`, and the rest."""
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in named.items() if name not in tensors}


def optimizer_state(folder: Path, about: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The state that `optimizer_parts` took apart. Raises FileError for anything else."""
    try:
        entries: dict[int, dict[str, Any]] = {}
        for name, value in [*tensors.items(), *about["scalars"].items()]:
            index, key = name.split("/", 1)
            entries.setdefault(int(index), {})[key] = value
        groups = [
            {key: tuple(value) if key == "betas" else value for key, value in group.items()}
            for group in about["param_groups"]
        ]
        if not all(isinstance(group["params"], list) and _are_betas(group.get("betas", (0, 0))) for group in groups):
            raise ValueError("its groups are damaged")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FileError(f"{folder}: the optimizer's state is not one that onecycle wrote ({error})") from error
    return {"state": entries, "param_groups": groups}
