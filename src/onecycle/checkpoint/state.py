"""The state that the next step of a fit depends on: captured between two steps, and restored."""

import json
import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onecycle.checkpoint.objects import DAMAGED, Objects
from onecycle.checkpoint.weights import (
    add_resting,
    load_weights,
    pack_optimizer,
    refuse_unkept,
    split_tensors,
    unpack_optimizer,
    warn_of_missing,
    weights_of,
)
from onecycle.core.record import Record, decode_nonfinite, encode_nonfinite, to_jsonable
from onecycle.core.trees import Packer, Unpacker, check_numpy_state
from onecycle.errors import FileError, SettingError, enumerate_first, warn_user
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


@dataclass
class Surroundings:
    """What the steps of a fit depend on besides weights, optimizer, callbacks' own states and torch's generators.

    Attributes:
        fit: Attributes of model, loss, metrics, optimizer and callbacks, and what their functions refer to.
        data: The same of the loaders.
        is_replayed: Whether an epoch that is resumed reads its batches from the first on: then the data are needed as
            they were when it began.
    """

    fit: Objects
    data: Objects
    is_replayed: bool
    _at_epoch: tuple[dict[str, Tensor], dict[str, Any]] | None = None
    _told: set[str] = field(default_factory=set[str])

    @classmethod
    def of(
        cls, fit: Fit, parts: dict[str, Any], callbacks: Sequence[Callback], loaders: dict[str, Any], is_fresh: bool
    ) -> "Surroundings":
        """Return those of a fit, as the user made them if they are fresh. `parts` are its loss and metrics."""
        own = [callback for callback in callbacks if not _keeps_state(callback)]
        names = [type(callback).__name__ for callback in own]
        named = {
            f"callback {name}{f' {names[:i].count(name) + 1}' if name in names[:i] else ''}": callback
            for i, (name, callback) in enumerate(zip(names, own, strict=True))
        }
        roots = {"model": fit.model, **parts, "optimizer": fit.opt.torch_opt, **named}
        data = {
            name: getattr(each, "loader", None) or {"tensors": getattr(each, "tensors", [])}
            for name, each in loaders.items()
        }
        is_replayed = hasattr(loaders.get("training data"), "loader")
        data_objects = Objects(data, fit.model, is_data=True, is_fresh=is_fresh)
        return cls(Objects(roots, fit.model, is_fresh=is_fresh, passed=data_objects.sources), data_objects, is_replayed)

    def begin_epoch(self, fit: Fit) -> None:
        """Note the state of the data, before the first batch of an epoch."""
        self._at_epoch = self._pack(self.data, fit) if self.is_replayed else None

    def pack(self, fit: Fit, position: Position) -> dict[str, tuple[dict[str, Tensor], dict[str, Any]]]:
        """Return tensors and values of fit, data and the generators of Python and NumPy."""
        data = self._at_epoch if position.num_batch and self._at_epoch is not None else self._pack(self.data, fit)
        packer = Packer({}, fit.device)
        generators = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False)}
        others = packer.pack(generators, "generators")
        packed = {"fit": self._pack(self.fit, fit), "data": data, "globals": (packer.tensors, others)}
        self._warn()
        return packed

    def _pack(self, objects: Objects, fit: Fit) -> tuple[dict[str, Tensor], dict[str, Any]]:
        packer = Packer(_tensors_of(fit.model), fit.device, may_overlap=objects.is_data)
        values = objects.pack(packer)
        return _copied(packer.tensors), values

    def unpack(self, fit: Fit, state: FitState, source: Any) -> None:
        """Put back what `pack` returned."""
        missing: list[str] = []
        for name, objects in (("fit", self.fit), ("data", self.data)):
            unpacker = Unpacker(state.tensors.get(f"objects-{name}", {}), _tensors_of(fit.model), fit.device)
            missing += objects.unpack(state.values.get("objects", {}).get(name, {}), unpacker)
        warn_of_missing(source, missing, "resume")

    def begin(self, fit: Fit) -> None:
        """Note which objects there are before the first step, and `check`."""
        for objects in (self.fit, self.data):
            objects.begin()
        self.check(fit)

    def check(self, fit: Fit) -> None:
        """Warn of what cannot be resumed, once. Raises SettingError if the optimizer's state cannot be saved."""
        pack_optimizer(fit.opt, fit.model)
        for objects in (self.fit, self.data):
            self._pack(objects, fit)
        refuse_unkept(self.fit, fit.opt)
        self._warn()

    def _warn(self) -> None:
        """Warn of what cannot be saved and was not named before."""
        found = {**self.fit.unkept, **self.data.unkept}
        if self.is_replayed:
            ids = {id(generator): path for path, generator in self.fit.generators.items()}
            shared = {path: ids[id(each)] for path, each in self.data.generators.items() if id(each) in ids}
            found |= {path: f"{other} draws from it too" for path, other in shared.items()}
        if new := {path: why for path, why in found.items() if path not in self._told}:
            self._told |= new.keys()
            words = enumerate_first([f"{path} ({why})" for path, why in new.items()])
            warn_user(
                "checkpoint: not everything that this fit may depend on can be saved; resumed, it may not be the same "
                f"bit for bit: {words}",
            )


@contextmanager
def resumed_generators(state: FitState, source: Any) -> Generator[None]:
    """Let the generators of Python and NumPy go on where they were, in the block; left alone if nothing draws."""
    unpacker = Unpacker(state.tensors.get("objects-globals", {}), {}, torch.device("cpu"))
    before = random.getstate(), np.random.get_state(legacy=False)
    if saved := state.values.get("objects", {}).get("globals"):
        try:
            states = unpacker.unpack(saved)
            check_numpy_state(states["numpy"])
            random.setstate(states["python"])
            np.random.set_state(states["numpy"])
        except DAMAGED as error:
            raise FileError(f"{source}: the states of Python's and NumPy's generators are damaged ({error})") from error
    began = repr((random.getstate(), np.random.get_state(legacy=False)))
    try:
        yield
    finally:
        if repr((random.getstate(), np.random.get_state(legacy=False))) == began:
            random.setstate(before[0])
            np.random.set_state(before[1])


def _keeps_state(callback: Callback) -> bool:
    """Whether the callback says itself what is saved of it."""
    owner = next(each for each in type(callback).__mro__ if "state" in vars(each))
    return owner is not Callback and (type(callback) is owner or not owner.__module__.startswith("onecycle."))


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a model by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def capture_state(
    fit: Fit, callbacks: Sequence[Callback], position: Position, surroundings: Surroundings | None = None
) -> FitState:
    """Copy the state of a fit. Waits for the device if that is not the CPU."""
    fit = copy(fit)  # as it is at one moment: another thread may end it early (anneal_now)
    optimizer_tensors, optimizer_values = pack_optimizer(fit.opt, fit.model)
    callback_states = [split_tensors(callback.state()) for callback in callbacks]
    objects = surroundings.pack(fit, position) if surroundings is not None else {}
    tensors = {
        "model": weights_of(fit.model),
        "buffers": _nonpersistent_buffers(fit.model),
        "optimizer": optimizer_tensors,
        "generators": position.generators,
        "record": _record_columns(fit.record),
    }
    tensors |= {f"callback-{i}": callback_tensors for i, (callback_tensors, _) in enumerate(callback_states)}
    tensors |= {f"objects-{name}": part for name, (part, _) in objects.items()}
    values = {
        "position": {name: value for name, value in vars(position).items() if name != "generators"},
        "epochs": fit.epochs,
        "schedule": fit.schedule.to_dict(),
        "frozen": _frozen(fit.model),
        "evaluating": [name for name, module in fit.model.named_modules() if not module.training],
        "record": asdict(replace(fit.record, **{name: [] for name in _PER_BATCH})),
        "callbacks": [
            {"name": type(callback).__name__, "values": callback_values}
            for callback, (_, callback_values) in zip(callbacks, callback_states, strict=True)
        ],
    }
    values = json.loads(json.dumps(encode_nonfinite(values), default=to_jsonable))  # a copy as JSON values
    values["optimizer"] = optimizer_values
    values["objects"] = {name: part for name, (_, part) in objects.items()}
    return FitState({part: _copied(group) for part, group in tensors.items()}, values)


def restore_state(
    state: FitState, fit: Fit, callbacks: Sequence[Callback], source: Any, surroundings: Surroundings | None = None
) -> None:
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
        add_resting(source, moments, resting, fit.opt, fit.model)
        load_weights(fit.model, state.tensors["model"], source)
    except BaseException as error:
        _train_all_but(frozen, fit)
        if isinstance(error, SettingError):
            raise SettingError(
                f"{source} belongs to a different fit: {error}; expected the same layer groups"
            ) from error
        raise
    _load_buffers(state, fit.model)
    for callback in callbacks:
        callback.on_train_begin(fit)
    # it may have changed what later hooks changed too, and the weights themselves
    _freeze(state, fit)
    load_weights(fit.model, state.tensors["model"], source)
    _load_buffers(state, fit.model)
    fit.opt.load_moments(
        unpack_optimizer(source, *packed, fit.opt, fit.model) | {"resting": moments["resting"]}, settings=True
    )
    if surroundings is not None:
        surroundings.unpack(fit, state, source)
    for callback in callbacks:
        i = next((i for i, (name, _) in saved.items() if name == type(callback).__name__), None)
        if i is not None:
            _, values = saved.pop(i)  # two callbacks of one class: in their order
            if callback_state := {**decode_nonfinite(values), **state.tensors.get(f"callback-{i}", {})}:
                callback.load_state(callback_state)
    if state.values["position"]["num_batch"]:
        evaluating = set(state.values.get("evaluating", ()))
        for name, module in fit.model.named_modules():
            module.training = name not in evaluating


def _load_buffers(state: FitState, model: nn.Module) -> None:
    buffers = state.tensors.get("buffers", {})
    with torch.no_grad():
        for name, buffer in _nonpersistent_buffers(model).items():
            if name in buffers:
                buffer.copy_(buffers[name])


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
