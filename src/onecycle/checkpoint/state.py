"""The state that the next step of a fit depends on: captured between two steps, and restored."""

import json
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.checkpoint.weights import (
    check_moments,
    load_weights,
    pack_optimizer,
    split_tensors,
    unpack_optimizer,
    weights_of,
)
from onecycle.core.record import Record, decode_nonfinite, encode_nonfinite, to_jsonable
from onecycle.errors import FileError, SettingError
from onecycle.train.callbacks.base import Callback
from onecycle.train.fit import Fit, Position

_PER_BATCH = ("lrs", "moms", "batch_losses", "losses")  # lists of the record that are stored as tensors


@dataclass(frozen=True)
class FitState:
    """The state of a fit, sharing no memory with it.

    Attributes:
        tensors: Tensors on the CPU, by part ("model", "optimizer", …) and name.
        values: The rest, as JSON values.
    """

    tensors: dict[str, dict[str, Tensor]]
    values: dict[str, Any]

    def record(self) -> Record:
        """Return the record of the fit so far. Raises ValueError if it is not one."""
        record = Record.from_json(json.dumps(self.values["record"]))
        columns = self.tensors.get("record", {})
        for name in _PER_BATCH:
            if name not in columns and name != "moms":
                raise ValueError(f"record.safetensors has no {name}")
            numbers: Any = columns[name].tolist() if name in columns else [None] * len(columns["lrs"])
            if not isinstance(numbers, list) or len(numbers) != len(columns["lrs"]):
                raise ValueError(f"record.safetensors has no {name} of each batch")
            setattr(record, name, numbers)
        record.stopped = None
        return record

    def position(self) -> Position:
        """Return where the fit stands."""
        return Position(**self.values["position"], generators=self.tensors.get("generators", {}))


def capture_state(fit: Fit, callbacks: Sequence[Callback], position: Position) -> FitState:
    """Copy the state of a fit. Waits for the device if that is not the CPU."""
    fit = copy(fit)  # as it is at one moment: another thread may end it early (anneal_now)
    optimizer_tensors, optimizer_values = pack_optimizer(fit.opt, fit.model)
    callback_states = [split_tensors(callback.state()) for callback in callbacks]
    tensors = {
        "model": weights_of(fit.model),
        "buffers": _nonpersistent_buffers(fit.model),
        "optimizer": optimizer_tensors,
        "resting": fit.opt.resting_state(),
        "generators": position.generators,
        "record": _record_columns(fit.record),
    }
    tensors |= {f"callback-{i}": callback_tensors for i, (callback_tensors, _) in enumerate(callback_states)}
    values = {
        "position": {name: value for name, value in vars(position).items() if name != "generators"},
        "epochs": fit.epochs,
        "schedule": fit.schedule.to_dict(),
        "optimizer": optimizer_values,
        "frozen": _frozen(fit.model),
        "record": asdict(replace(fit.record, **{name: [] for name in _PER_BATCH})),
        "callbacks": [
            {"name": type(callback).__name__, "values": callback_values}
            for callback, (_, callback_values) in zip(callbacks, callback_states, strict=True)
        ],
    }
    values = json.loads(json.dumps(encode_nonfinite(values), default=to_jsonable))  # a copy as JSON values
    return FitState({part: _copied(group) for part, group in tensors.items()}, values)


def restore_state(state: FitState, fit: Fit, callbacks: Sequence[Callback], source: Any) -> None:
    """Load the state into model and optimizer; call on_train_begin of each callback, then load its state.

    Raises FileError if parts are missing, ModelError for another model's weights, SettingError for other layer groups;
    model and optimizer are as before then.
    """
    frozen, resting = _frozen(fit.model), state.tensors.get("resting", {})
    try:
        packed = state.values["optimizer"], state.tensors.get("optimizer", {})
        saved = {i: (entry["name"], entry["values"]) for i, entry in enumerate(state.values["callbacks"])}
    except (KeyError, TypeError) as error:
        raise FileError(f"{source}: not the checkpoint of a fit ({error} missing)") from error
    try:
        _freeze(state, fit)
        moments = unpack_optimizer(source, *packed, fit.opt, fit.model)
        named = [(path.rpartition("/"), value) for path, value in resting.items()]
        check_moments(source, fit.opt, fit.model, [(name, key, value) for (name, _, key), value in named])
        load_weights(fit.model, state.tensors["model"], source)
    except BaseException as error:
        _train_all_but(frozen, fit)
        if isinstance(error, SettingError):
            raise SettingError(
                f"{source} belongs to a different fit: {error}; expected the same layer groups"
            ) from error
        raise
    buffers = state.tensors.get("buffers", {})
    with torch.no_grad():
        for name, buffer in _nonpersistent_buffers(fit.model).items():
            if name in buffers:
                buffer.copy_(buffers[name])
    try:
        fit.opt.load_moments(moments, settings=True)  # what callbacks set too
        fit.opt.load_resting_state(fit.model, resting)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileError(f"{source}: the optimizer's state is not that of this fit ({error})") from error
    settings = [{key: value for key, value in group.items() if key != "params"} for group in fit.opt.groups]
    for callback in callbacks:
        callback.on_train_begin(fit)
        i = next((i for i, (name, _) in saved.items() if name == type(callback).__name__), None)
        if i is not None:
            _, values = saved.pop(i)  # two callbacks of one class: in their order
            if callback_state := {**decode_nonfinite(values), **state.tensors.get(f"callback-{i}", {})}:
                callback.load_state(callback_state)
    _freeze(state, fit)  # again: on_train_begin may have changed what later hooks changed too
    for group, own in zip(fit.opt.groups, settings, strict=True):
        group.update(own)


def _freeze(state: FitState, fit: Fit) -> None:
    """Train the parameters that were trained then; or, of earlier versions, when the fit began."""
    frozen = state.values.get("frozen", state.values.get("about", {}).get("model", {}).get("frozen"))
    if isinstance(frozen, list):
        _train_all_but(frozen, fit)


def _train_all_but(frozen: list[Any], fit: Fit) -> None:
    names = {name for name in frozen if isinstance(name, str)}
    for name, parameter in fit.model.named_parameters():
        parameter.requires_grad_(name not in names)
    fit.opt.follow(fit.model)


def _frozen(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def _nonpersistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that a state dict leaves out."""
    persistent = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in persistent}


def _record_columns(record: Record) -> dict[str, Tensor]:
    """Return the numbers of each batch as tensors, exactly; momentum is left out if the optimizer has none."""
    columns = {name: getattr(record, name) for name in _PER_BATCH}
    return {
        name: torch.tensor(numbers, dtype=torch.float64) for name, numbers in columns.items() if None not in numbers
    }


def _copied(group: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in group.items()}
