"""All that the next step of a fit depends on: copied between two steps, and put back."""

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.checkpoint.weights import load_weights, optimizer_parts, optimizer_state, split_tensors, weights_of
from onecycle.core.record import Record, decode_nonfinite, encode_nonfinite, to_jsonable
from onecycle.errors import FileError
from onecycle.train.callbacks.base import Callback
from onecycle.train.fit import Fit, Position

Tensors = dict[str, dict[str, Tensor]]
_LISTS = ("lrs", "moms", "batch_losses", "losses")  # of the record, a number a batch


@dataclass(frozen=True)
class FitState:
    """Tensors, on the CPU and nobody else's, and what JSON has."""

    tensors: Tensors
    values: dict[str, Any]


def capture_state(fit: Fit, callbacks: Sequence[Callback], position: Position) -> FitState:
    """Copy the state of a fit. Waits for the device, where that is not the CPU."""
    fit = copy(fit)  # as it is at one moment: another thread may end it early (anneal_now)
    optimizer, about = optimizer_parts(fit.opt)
    states = [split_tensors(callback.state()) for callback in callbacks]
    tensors: Tensors = {
        "model": weights_of(fit.model),
        "buffers": _other_buffers(fit.model),
        "optimizer": optimizer,
        "generators": position.generators,
        "record": _columns(fit.record),
    }
    tensors |= {f"callback-{i}": learnt for i, (learnt, _) in enumerate(states)}
    where = {name: value for name, value in vars(position).items() if name != "generators"}
    values = {
        "position": where,
        "epochs": fit.epochs,
        "schedule": fit.schedule.to_dict(),
        "optimizer": about,
        "record": json.loads(replace(fit.record, **{name: [] for name in _LISTS}).to_json()),
        "callbacks": [
            {"name": type(callback).__name__, "values": rest}
            for callback, (_, rest) in zip(callbacks, states, strict=True)
        ],
    }
    values = json.loads(json.dumps(encode_nonfinite(values), default=to_jsonable))  # a copy, of what JSON has
    return FitState({part: _copies(group) for part, group in tensors.items()}, values)


def record_of(state: FitState) -> Record:
    """The record of the fit so far. Raises ValueError where it is none."""
    record = Record.from_json(json.dumps(state.values["record"]))
    columns = state.tensors.get("record", {})
    for name in _LISTS:
        found: Any = columns[name].tolist() if name in columns else [None] * len(record.lrs)
        if not isinstance(found, list) or (name != "moms" and name not in columns) or len(found) != len(columns["lrs"]):
            raise ValueError(f"record.safetensors has no {name}")
        setattr(record, name, found)
    record.stopped = None
    return record


def position_of(state: FitState) -> Position:
    """Where the fit stands."""
    return Position(**state.values["position"], generators=state.tensors.get("generators", {}))


def restore_state(state: FitState, fit: Fit, callbacks: Sequence[Callback], source: Any) -> None:
    """Put the state into model, optimizer and callbacks, which begin as in a new fit before.

    Raises FileError where parts are missing, ModelError for another model's weights.
    """
    try:
        optimizer = optimizer_state(source, state.values["optimizer"], state.tensors.get("optimizer", {}))
        known = [(about["name"], about["values"]) for about in state.values["callbacks"]]
    except (KeyError, TypeError) as error:
        raise FileError(f"{source}: not the checkpoint of a fit ({error} missing)") from error
    load_weights(fit.model, state.tensors["model"], source)
    with torch.no_grad():
        for name, buffer in _other_buffers(fit.model).items():
            if name in state.tensors.get("buffers", {}):
                buffer.copy_(state.tensors["buffers"][name])
    try:
        fit.opt.load_moments(optimizer)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileError(f"{source}: the optimizer's state is not that of this fit ({error})") from error
    for callback in callbacks:
        callback.on_train_begin(fit)
        i = next((i for i, (name, _) in enumerate(known) if name == type(callback).__name__), None)
        if i is None:
            continue
        found = {**decode_nonfinite(known[i][1]), **state.tensors.get(f"callback-{i}", {})}
        known[i] = ("", {})  # it has found its callback
        if found:
            callback.load_state(found)


def diff_descriptions(found: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """What two descriptions (dicts of dicts of values) differ in, in words."""
    words = list[str]()
    for part in own:
        theirs, ours = found.get(part, {}), own[part]
        words += [
            f"{part}: {name} {_shown(theirs.get(name))}, here {_shown(ours.get(name))}"
            for name in dict.fromkeys([*theirs, *ours])
            if theirs.get(name) != ours.get(name)
        ]
    return words


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _other_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The buffers that a state dict leaves out."""
    kept = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in kept}


def _columns(record: Record) -> dict[str, Tensor]:
    """The numbers of each batch, exactly; a momentum that the optimizer does not have is left out."""
    lists = {name: getattr(record, name) for name in _LISTS}
    return {
        name: torch.tensor(values, dtype=torch.float64)
        for name, values in lists.items()
        if not any(value is None for value in values)
    }


def _copies(group: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in group.items()}
