"""Save model weights and optimizer state to a folder, and load them."""

import reprlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from onecycle.checkpoint.objects import DAMAGED, Objects
from onecycle.core.archives import Place, place_name, read_archive, write_archive, write_folder
from onecycle.core.meaning import check_meaning
from onecycle.core.trees import TAG, CannotPackError, Packer, Unpacker
from onecycle.errors import FileError, ModelError, SettingError, warn_user
from onecycle.optim.optimizer import GroupedOptimizer

KIND = "checkpoint"
_WITH_NAN = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)


def save_checkpoint(
    folder: Place, model: nn.Module, opt: GroupedOptimizer | None, epochs_trained: int, meaning: dict[str, Any] | None
) -> None:
    """Write the state of the model and, if given, of the optimizer, to a folder or a file-like object.

    An older checkpoint in `folder` is replaced.
    `epochs_trained` decides the batch order of the next epoch; `meaning`, what `describe_meaning` returned, is written
    beside the weights. Raises ModelError for a state that is not all tensors.
    """
    tensors: dict[str, dict[str, Tensor]] = {"model": weights_of(model)}
    state: dict[str, Any] = {"epochs_trained": epochs_trained}
    if meaning is not None:
        state["info"] = meaning  # as in a bundle
    if opt is not None:
        tensors["optimizer"], state["optimizer"] = pack_optimizer(opt, model)
        attributes, values = _pack_attributes(opt, model)
        if values:  # few optimizers have any
            tensors["attributes"], state["attributes"] = attributes, values
    if isinstance(folder, Path):
        write_folder(folder, KIND, tensors, state, replace=True)
    else:
        write_archive(folder, KIND, tensors, state, replace=True)


def load_checkpoint(
    place: Place, model: nn.Module, opt: GroupedOptimizer | None, meaning: dict[str, Any] | None
) -> tuple[bool, int]:
    """Load a saved state into `model` and `opt`.

    Returns whether the optimizer's state was loaded, and the epochs trained. The state of another optimizer, or of
    other layer groups, is ignored with a warning. Raises FileError for a missing or damaged folder and ModelError for
    another model's weights, or for weights that do not mean what `meaning` says; nothing is changed then.
    """
    (state, tensors), folder = read_archive(place, KIND), place_name(place)
    if "model" not in tensors:
        raise FileError(f"{folder}: holds no model")
    epochs = state.get("epochs_trained", 0)
    if type(epochs) is not int or not 0 <= epochs < 2**63:
        raise FileError(f"{folder}: epochs_trained is {reprlib.repr(epochs)}; expected a count")
    if meaning is not None:
        check_meaning(state.get("info"), meaning, folder)
    moments, attributes = None, state.get("attributes", {})
    if not isinstance(attributes, dict) or not all(isinstance(values, dict) for values in attributes.values()):
        raise FileError(f"{folder}: the optimizer's attributes are damaged")
    if opt is not None and "optimizer" in state:
        try:
            moments = unpack_optimizer(folder, state["optimizer"], tensors.get("optimizer", {}), opt, model)
        except SettingError as error:
            warn_user(f"{folder}: only the weights are loaded; {error}")
    load_weights(model, tensors["model"], folder)
    if opt is not None and moments is not None:
        opt.load_moments(moments)
        parameters = dict(model.named_parameters())
        unpacker = Unpacker(tensors.get("attributes", {}), parameters, _device(model))
        warn_of_missing(folder, Objects({"optimizer": opt.torch_opt}).unpack(attributes, unpacker), "load")
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

    A tensor of a trained parameter is named by the parameter's index and its own key, and so are other values among the
    "scalars". The state is that of the parameters which are trainable in `model` now; that of frozen ones is "resting".
    Raises SettingError if it cannot be stored exactly.
    """
    with suppress(SettingError):  # nothing is trainable: the next fit says so
        opt.follow(model, is_shown=False)
    parameters = dict(model.named_parameters())
    packer = Packer(parameters, _device(model))
    index = {id(parameter): i for i, parameter in enumerate(p for group in opt.groups for p in group["params"])}
    scalars, others, flat = dict[str, Any](), list[Any](), set[str]()
    try:
        for key, entry in opt.torch_opt.state.items():
            if id(key) not in index or type(entry) is not dict or not all(type(name) is str for name in entry):
                others.append([packer.pack_key(key, "state"), packer.pack(entry, f"state/{len(others)}")])
                continue
            for name, value in entry.items():
                path = f"{index[id(key)]}/{name}"
                packed = packer.pack(value, path)
                if packed == {TAG: "tensor", "name": path} or (
                    isinstance(value, Tensor) and _is_like(value, key, packed)
                ):
                    flat.add(path)
                else:
                    scalars[path] = packed
        groups = [
            {key: packer.pack(value, key) for key, value in group.items() if key != "params"} for group in opt.groups
        ]
        resting = {name: packer.pack(entry, f"resting/{name}") for name, entry in opt.resting_state().items()}
    except CannotPackError as error:
        raise SettingError(
            f"the state of the optimizer {type(opt.torch_opt).__name__} cannot be saved exactly: {error}; expected "
            "numbers, tensors, and lists and dicts of them"
        ) from error
    for group, packed in zip(opt.groups, groups, strict=True):
        packed["params"] = [index[id(parameter)] for parameter in group["params"]]
    return packer.tensors, {
        "name": type(opt.torch_opt).__name__,
        "param_groups": groups,
        "own": opt.own_settings(),
        "parameters": _names_in(opt, model),
        "scalars": scalars,
        "others": others,
        "resting": resting,
        "nested": sorted(packer.tensors.keys() - flat),
    }


def _is_like(value: Tensor, parameter: Tensor, packed: Any) -> bool:
    """Whether a tensor of the state has the layout and the place that one of its parameter has by default."""
    if packed.keys() - {TAG, "name", "stride", "device"} or packed.get(TAG) != "tensor":
        return False
    is_dense = "stride" not in packed or (value.shape, value.stride()) == (parameter.shape, parameter.stride())
    return is_dense and value.device == parameter.device and packed["name"].count("'") == 0


def _pack_attributes(opt: GroupedOptimizer, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what an optimizer keeps beside its state and groups, other than settings: tensors, and the rest."""
    packer = Packer(dict(model.named_parameters()), _device(model))
    objects = Objects({"optimizer": opt.torch_opt}, is_fresh=False)
    packed = objects.pack(packer)
    refuse_unkept(objects, opt)
    own = packed.get("optimizer", {})
    for name in opt.attributes_as_made():
        own.pop(name, None)
    return packer.tensors, {path: values for path, values in packed.items() if values}


def refuse_unkept(objects: Objects, opt: GroupedOptimizer) -> None:
    """Raise SettingError for what an optimizer keeps and cannot be saved."""
    if found := next((path for path in objects.unkept if path.startswith("optimizer")), None):
        raise SettingError(
            f"the optimizer {type(opt.torch_opt).__name__} cannot be saved exactly: {found} ({objects.unkept[found]}); "
            "expected numbers, tensors, and lists and dicts of them"
        )


def warn_of_missing(source: Any, missing: list[str], action: str) -> None:
    """Warn that what was saved of these objects has no place in those that are here."""
    if missing:
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        warn_user(
            f"{source}: what was saved of {', '.join(missing[:3])}{more} has no place here: it is made later, or is "
            f"of another kind; after this {action} the numbers are not those of a fit that was never stopped",
        )


def _device(model: nn.Module) -> torch.device:
    return next(iter(model.parameters())).device


def unpack_optimizer(
    folder: Path, values: dict[str, Any], tensors: dict[str, Tensor], opt: GroupedOptimizer, model: nn.Module
) -> dict[str, Any]:
    """Return the state that `pack_optimizer` packed, as `GroupedOptimizer.load_moments` takes it.

    Raises SettingError for the state of another optimizer or of other layer groups, FileError for anything else.
    """
    parameters = dict(model.named_parameters())
    unpacker = Unpacker(tensors, parameters, _device(model))
    try:
        entries: dict[int, dict[str, Any]] = {}
        nested, scalars = set(values.get("nested", ())), values["scalars"]
        flat = {name: tensor for name, tensor in tensors.items() if name not in nested}
        for name, value in [*flat.items(), *((name, unpacker.unpack(value)) for name, value in scalars.items())]:
            index, key = name.split("/", 1)
            entries.setdefault(int(index), {})[key] = value
        is_old = "own" not in values  # of earlier versions, whose lists are tuples
        groups = [
            {key: tuple(value) if key == "betas" and is_old else unpacker.unpack(value) for key, value in group.items()}
            for group in values["param_groups"]
        ]
        indices = [index for group in groups for index in group["params"]]
        if indices != list(range(len(indices))) or not all(_are_betas(group.get("betas", (0, 0))) for group in groups):
            raise ValueError("its groups are damaged")
        of_torch = type(opt.torch_opt).__module__.startswith("torch.optim")  # others may keep anything in a group
        for group, own_group in zip(groups, opt.groups, strict=False) if of_torch else ():
            if wrong := [key for key, value in group.items() if not _is_same_kind(value, own_group.get(key), key)]:
                raise ValueError(f"param_groups: {wrong[0]} is {reprlib.repr(group[wrong[0]])}")
        own = _names_in(opt, model)
        saved = values.get("parameters", own)  # earlier versions wrote no names: theirs are in the order of the model
        mismatch = _optimizer_mismatch(values, saved, opt, own)
        others = [(unpacker.unpack_key(key), unpacker.unpack(value)) for key, value in values.get("others", ())]
        resting = {parameters[name]: unpacker.unpack(entry) for name, entry in values.get("resting", {}).items()}
        changed = [list(map(str, keys)) for keys in values.get("own", [[] for _ in groups])]
        if len(changed) != len(groups):
            raise ValueError("its groups are damaged")
    except (*DAMAGED, RecursionError) as error:
        raise FileError(f"{folder}: the optimizer's state is not one that onecycle wrote ({error})") from error
    if mismatch is not None:
        raise SettingError(f"the optimizer's state is of {mismatch}")
    state = dict[Any, Any]()
    for group, saved_names, own_names in zip(groups, saved, own, strict=True):
        index_of = dict(zip(saved_names, group["params"], strict=True))
        group["params"] = [index_of[name] for name in own_names]
        for name, index in zip(own_names, group["params"], strict=True):
            if entry := entries.get(index):
                parameter = parameters[name]
                if of_torch and group.get("amsgrad") and "max_exp_avg_sq" not in entry:
                    raise FileError(f"{folder}: the optimizer's state has amsgrad, and {name} has no max_exp_avg_sq")
                state[parameter] = {k: _placed(v, parameter) if f"{index}/{k}" in flat else v for k, v in entry.items()}
    names = {id(parameter): name for name, parameter in parameters.items()}
    held = [(names[id(p)], entry) for p, entry in [*state.items(), *resting.items(), *others] if id(p) in names]
    check_moments(folder, opt, model, [(n, k, v) for n, e in held if isinstance(e, dict) for k, v in e.items()])
    return {"state": {**state, **dict(others)}, "param_groups": groups, "own": changed, "resting": resting}


def add_resting(
    folder: Path, state: dict[str, Any], tensors: dict[str, Tensor], opt: GroupedOptimizer, model: nn.Module
) -> None:
    """Add to an unpacked state that of frozen parameters as earlier versions wrote it: tensors by name and key."""
    parameters, named = (
        dict(model.named_parameters()),
        [(path.rpartition("/"), value) for path, value in tensors.items()],
    )
    check_moments(folder, opt, model, [(name, key, value) for (name, _, key), value in named])
    for (name, _, key), value in named:
        state["resting"].setdefault(parameters[name], {})[key] = _placed(value, parameters[name])


def _placed(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor of the state of a parameter on its device, and laid out in memory as it is."""
    if value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _is_same_kind(value: Any, own: Any, key: str) -> bool:
    """Whether a setting of a saved group is of the kind of the optimizer's own: a flag, or a number."""
    if key == "params":
        return True
    if isinstance(own, bool):
        return isinstance(value, bool) or (value is None and key in ("foreach", "fused"))
    if isinstance(own, tuple):
        return isinstance(value, tuple) and all(map(_is_same_kind, value, own, [key] * len(own)))
    if isinstance(own, int | float):
        return isinstance(value, float | Tensor) or (type(value) is int and abs(value) < 2**63)
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
