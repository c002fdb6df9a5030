"""Signature: what a resumed fit must have in common with the one that it continues, by part and name.

Whatever decides the steps is in the checkpoint, or in the signature: rows and loaders, model, loss, metrics, optimizer
and callbacks, described by their settings and code. `Signature.unchecked` names what cannot be compared.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from onecycle.data.loaders import InMemoryLoader, Loader, RowLoader, SeededGlobalRNG, TorchLoader, sha256_of
from onecycle.errors import enumerate_first
from onecycle.optim.optimizer import GroupedOptimizer
from onecycle.train.callbacks.base import Callback
from onecycle.train.describe import LATER_BYTES, Description, attributes_of, checksum, resolved
from onecycle.train.losses import loss_name
from onecycle.train.metrics import metric_names
from onecycle.train.snapshot import is_installed, restoring
from onecycle.train.step import Objective

VERSION = 1  # of what signatures contain; those of onecycle 0.1.0 have none
_SAMPLED_ROWS = 8  # of a data set whose rows are not in memory
_MAX_DEPTH, _MAX_SETS = 8, 1000  # of data sets within data sets
_OF_OPTIMIZERS = ("state", "param_groups", "defaults")
_OF_MODEL = "a tensor of the model"
Part = dict[str, Any]


class Signature:
    """The signature of a fit, taken before its first hook. Calling it returns its values, which may take a while.

    Args:
        settings: Parts that are plain values already, by name.
        objective: Loss and metrics.
        model: The model.
        opt: The optimizer.
        callbacks: The callbacks.
        loaders: Loaders by the name of their part; None for a set that is not there.
        target: What the targets mean, or None.
        is_quick: Only tell later what has changed since.

    Attributes:
        unchecked: What a resumed fit is not compared by, as text for the user.
        left_out: Parts and names of what steps change, which is not compared.
    """

    def __init__(
        self,
        settings: dict[str, Part],
        objective: Objective,
        model: nn.Module,
        opt: GroupedOptimizer | None,
        callbacks: Sequence[Callback],
        loaders: dict[str, Loader | None],
        target: Any = None,
        is_quick: bool = False,
    ) -> None:
        self._settings, self._objective, self._model, self._opt = settings, objective, model, opt
        self._callbacks, self._loaders, self._target = callbacks, loaders, target
        self.unchecked: list[str] = []
        self._parts = {} if is_quick else self._describe(is_quick=False)
        self._began = self._describe(is_quick=True)
        self.left_out: set[tuple[str, str]] = set()
        self._values: dict[str, Part] = {}

    def __call__(self) -> dict[str, Part]:
        """Return the plain values by part and name."""
        if not self._values:
            in_order = {part: self._parts[part] for part in self._loaders} | self._parts  # other data say most
            plain = {part: resolved(values) for part, values in in_order.items()}
            self._values = json.loads(json.dumps(plain, default=repr))  # as a checkpoint returns them
        return self._values

    def changed(self) -> dict[str, list[str]]:
        """Return the names, by part, of what is not as it was when the fit began: a step changes it."""
        now = self._describe(is_quick=True)
        for part, before in self._began.items():
            values = now[part]
            names = [name for name in before.keys() | values.keys() if before.get(name) != values.get(name)]
            self.left_out |= {(part, name) for name in names}
        return {part: sorted(name for owner, name in self.left_out if owner == part) for part in now}

    def continue_from(self, changed: dict[str, list[str]]) -> None:
        """Take over what a checkpoint, or what came before the fit, says of the names that steps change."""
        self.left_out |= {(part, name) for part, names in changed.items() for name in names}

    def message(self) -> str | None:
        """Return a line that names what is not compared, or None if there is nothing."""
        if not self.unchecked:
            return None
        named = enumerate_first(self.unchecked)
        return f"checkpoint: a change of what follows would not be noticed when the fit is resumed: {named}"

    def _describe(self, is_quick: bool) -> dict[str, Part]:
        model, opt = self._model, None if self._opt is None else self._opt.torch_opt
        modules = [(module, f"model.{name}".rstrip(".")) for name, module in model.named_modules()]
        known = [*((tensor, _OF_MODEL) for tensor in (*model.parameters(), *model.buffers())), (opt, "the optimizer")]
        known += [*modules, *((each.dataset, name) for name, each in self._loaders.items() if each is not None)]
        parts = {part: dict(values) for part, values in self._settings.items()}
        opaque: list[str] = []

        def describe(part: str, add: Callable[[Description], Part | None]) -> None:
            description = Description(known, is_quick)
            more = add(description) or {}
            parts[part] = {**parts.get(part, {}), **more, **description.values}
            opaque.extend(f"{part}: {name} ({kind})" for name, kind in description.opaque.items())

        describe("model", partial(_add_model, modules=modules))
        describe("loss", lambda own: own.add(loss_name(self._objective.loss_func), self._objective.loss_func))
        describe("metrics", self._add_metrics)
        describe("optimizer", lambda own: own.add_attributes("", opt, _of_every_optimizer(opt)))
        describe("callbacks", self._add_callbacks)
        target = {name: value for name, value in attributes_of(self._target) if not name.startswith("_")}
        describe("settings", lambda own: own.add("target", target))
        for part, loader in self._loaders.items():
            describe(part, partial(self._add_loader, part, loader, is_quick))
            if isinstance(loader, TorchLoader):
                parts.setdefault("machine", {})[f"workers of {part}"] = loader.loader.num_workers
        if not is_quick:
            self.unchecked += opaque
        return parts

    def _add_metrics(self, own: Description) -> None:
        metrics = self._objective.metrics
        for name, metric in zip(metric_names(metrics), metrics, strict=True):
            if not hasattr(metric, "update"):
                own.add(name, metric)
                continue
            own.add_class(type(metric))  # it has state of its own, which validation resets
            own.add(name, type(metric))
            for key, value in attributes_of(metric):
                if not key.startswith("_") and isinstance(value, str | int | float | None):
                    own.add(f"{name}.{key}", value)

    def _add_callbacks(self, own: Description) -> None:
        names = callback_names([type(callback).__name__ for callback in self._callbacks])
        own.values["order"] = names
        for name, callback in zip(names, self._callbacks, strict=True):
            own.add_class(type(callback), with_values=False)
            for key, value in callback.resume_settings().items():
                own.add(f"{name}.{key}", value)

    def _add_loader(self, part: str, loader: Loader | None, is_quick: bool, own: Description) -> Part:
        """Describe a loader and its data set; return what is known of every kind."""
        if loader is None:
            return {"rows": 0}
        dataset: Any = loader.dataset
        values: Part = {"bs": loader.batch_size, "batches": len(loader)}
        with suppress(TypeError):  # an iterable data set has perhaps no length
            values["rows"] = len(dataset)
        values |= {key: getattr(loader, key) for key in ("shuffle", "drop_last", "pixel_scale") if hasattr(loader, key)}
        if isinstance(loader, InMemoryLoader):
            if is_quick:
                return values | {"sha256": None}
            is_large = sum(tensor.nbytes for tensor in loader.tensors) >= LATER_BYTES
            return values | {"sha256": partial(sha256_of, loader.tensors) if is_large else sha256_of(loader.tensors)}
        files: list[Any] = getattr(dataset, "files", [])  # of rows on the disk, with the checksums of their manifest
        if isinstance(loader, RowLoader) and files:
            return values | {"sha256": [file.sha256 for file in files]}
        datasets = [*_datasets_in(dataset)]
        for i, each in enumerate(datasets):
            name = f"data set {i + 1}" if i else "data set"
            own.add(f"class of {name}", type(each).__qualname__)
            inner = [key for key, value in attributes_of(each) if key == "datasets" or isinstance(value, Dataset)]
            own.add_attributes(name, each, inner)
            own.add_known(each, name)
        if isinstance(loader, TorchLoader):
            for key in ("sampler", "batch_sampler", "collate_fn", "worker_init_fn", "drop_last"):
                own.add(key, getattr(loader.loader, key))
        else:
            own.add_attributes("loader", loader, ("dataset", "device"))
        if not is_quick and not all(isinstance(each, TensorDataset | Subset | ConcatDataset) for each in datasets):
            rows, count = _sampled_rows(dataset, datasets), values.get("rows", 0)
            own.values["rows in a sample"] = rows
            if not count or max(own.lengths, default=0) < count:  # they are read, or made, when they are needed
                sample = "" if rows is None else f", other than {min(count, _SAMPLED_ROWS)} of them"
                self.unchecked.append(f"{part}: rows of {type(dataset).__name__}{sample}")
        return values | {"data set": type(dataset).__name__}


def callback_names(classes: Sequence[str]) -> list[str]:
    """Return a name for each callback, given by the names of their classes: the second of a class has a number."""
    names: list[str] = []
    for i, name in enumerate(classes):
        number = classes[: i + 1].count(name)
        names.append(f"{name} {number}" if number > 1 else name)
    return names


def _add_model(own: Description, modules: list[tuple[nn.Module, str]]) -> None:
    for module, name in modules:
        own.add(f"class of {name}", type(module).__qualname__)
        if type(module).get_extra_state is nn.Module.get_extra_state:
            own.add_attributes(name, module, ("training",))
        else:  # its attributes may be in that state, which is in the checkpoint
            own.add_class(type(module))
    own.values = {name: value for name, value in own.values.items() if value != _OF_MODEL}


def _of_every_optimizer(opt: Any) -> list[str]:
    """Return the names of the attributes that are in the checkpoint, or torch's own."""
    return [*_OF_OPTIMIZERS, *(name for name, _ in attributes_of(opt) if name.startswith("_"))]


def _datasets_in(dataset: Any, depth: int = 0) -> Iterator[Any]:
    """Yield a data set and those that it is made of."""
    yield dataset
    if depth < _MAX_DEPTH:
        for _, value in attributes_of(dataset):
            for inner in value if isinstance(value, list | tuple) and len(value) < _MAX_SETS else (value,):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] -- of whatever
                if isinstance(inner, Dataset):
                    yield from _datasets_in(inner, depth + 1)


def _sampled_rows(dataset: Any, datasets: list[Any]) -> str | None:
    """Return a checksum of some rows of a data set; None if that says nothing, or its state could not be put back.

    It says nothing if a row is another when it is read again, as with random augmentation.
    """
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        return None
    last = len(dataset) - 1
    numbers = sorted({i * last // (_SAMPLED_ROWS - 1) for i in range(_SAMPLED_ROWS)})
    state = [vars(each) for each in datasets if hasattr(each, "__dict__")]
    found: list[str] = []
    try:
        classes = [type(each) for each in datasets if not is_installed(type(each).__module__)]
        with restoring(*state, *classes, is_trial=True) as snapshot:
            if not snapshot.is_complete:
                return None
            with snapshot.trying():
                for seed in (0, 1):
                    with SeededGlobalRNG(seed):
                        rows = Description()
                        rows.add("", [dataset[number] for number in numbers])
                        found.append(checksum(resolved(rows.values)))
    except Exception:  # whatever a user's data set raises; if it fails in training too, the error comes there
        return None
    return found[0] if found[0] == found[1] else None


def machine() -> Part:
    """Return what the last bits of a fit depend on besides its settings."""
    return {
        "torch": torch.__version__,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "matmul precision": torch.get_float32_matmul_precision(),
    }
