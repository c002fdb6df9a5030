"""What the objects of a fit hold besides parameters and buffers: generators, counters, memories of steps.

The model, loss, metrics, callbacks, data sets, samplers and optimizer are walked, with the functions that they call:
attributes, closures, globals and class attributes, each by a path such as "model.head.counter". Saved are random
generators, tensors and arrays, and other values that have changed since the fit began. They are restored in place.
"""

import io
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from logging import Handler, Logger
from random import SystemRandom
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler

from onecycle.core.trees import CannotPackError, Packer, Unpacker, is_generator
from onecycle.errors import pluralize
from onecycle.train.snapshot import global_names, is_installed

DAMAGED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError)
"""What an Unpacker raises for what is not what a Packer returned."""
_MODULE = frozenset(vars(nn.Module()))
_MOST_OBJECTS, _MOST_ITEMS, _LOOKED_AT, _MOST_BYTES = 100_000, 1_000, 10, 2**22
_ALWAYS_BYTES = 2**24  # of a tensor that is saved whether or not it has changed
_ATOMS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_PASSED: tuple[type[Any], ...] = (
    *(type, ModuleType, BuiltinFunctionType, Logger, Handler, threading.Thread, io.IOBase, torch.jit.ScriptModule),
    *(torch._C.ScriptFunction, property, classmethod, staticmethod),  # pyright: ignore[reportPrivateUsage] -- the type of what torch.jit.script returns
)
_OPTIMIZER = ("defaults", "param_groups", "state")  # and names that begin so:
_OPTIMIZER_PRIVATE = ("_optimizer_", "_zero_grad", "_warned_", "_patched", "_hook_for_profile")


@dataclass(frozen=True)
class Holder:
    """The attributes of an object, or the items of a container, that may be read and written.

    Attributes:
        items: The values, by name.
        put: Writes one.
        is_outside: Whether it is no object of the fit, but what its functions refer to: globals, classes, closures.
        is_data: Whether large tensors in it are the data rather than what a fit makes of them.
    """

    items: dict[str, Any]
    put: Callable[[str, Any], None]
    is_outside: bool = False
    is_data: bool = False


@dataclass
class Objects:
    """The objects of a fit, or a part of them.

    Args:
        roots: The objects, by the name that their paths begin with.
        model: The model, whose parameters and buffers are saved elsewhere.
        is_data: Whether they are the data, whose large tensors are not saved unless they change.
        is_fresh: Whether the objects are as the user made them; else all that they hold counts as changed.

    Attributes:
        unkept: Paths of what is likely to change and cannot be saved, with the reason.
        generators: The random generators, by path.
        sources: The data sets, samplers and loaders, by id.
        passed: Objects, by id, that belong to others.
    """

    roots: Mapping[str, Any]
    model: nn.Module | None = None
    is_data: bool = False
    is_fresh: bool = True
    unkept: dict[str, str] = field(default_factory=dict[str, str])
    generators: dict[str, Any] = field(default_factory=dict[str, Any])
    sources: dict[int, Any] = field(default_factory=dict[int, Any])
    passed: Mapping[int, Any] = field(default_factory=dict[int, Any])
    _known: set[str] | None = None
    _start: dict[tuple[str, str], Any] = field(default_factory=dict[tuple[str, str], Any])

    def __post_init__(self) -> None:
        self._start = {
            (path, name): _form(value, holder.is_data)
            for path, holder in self._walk().items()
            for name, value in holder.items.items()
            if not is_generator(value)
            and (self.is_fresh or holder.is_outside or (holder.is_data and _holds_tensors(value)))
        }

    def begin(self) -> None:
        """Note which objects are there when the first step begins: no other can be made again by a fit that resumes."""
        self._known = {*self._walk()}

    def pack(self, packer: Packer) -> dict[str, dict[str, Any]]:
        """Return what has changed since the beginning, and what is always saved, by path and name."""
        packed: dict[str, dict[str, Any]] = {}
        for path, holder in self._walk().items():
            for name, value in holder.items.items():
                if self._is_state(path, name, value, holder):
                    is_new = self._known is not None and path not in self._known and not holder.is_outside
                    if is_new and not any(path.startswith(f"{other}.") for other in self.unkept):
                        self.unkept[path] = "it is made while the fit runs"
                    try:
                        packed.setdefault(path, {})[name] = packer.pack(value, f"{path}.{name}")
                    except CannotPackError as error:
                        self.unkept[f"{path}.{name}"] = str(error)
        return {path: values for path, values in packed.items() if values}

    def unpack(self, packed: Mapping[str, Any], unpacker: Unpacker) -> list[str]:
        """Put back what `pack` returned; return the paths that are not there, or of another kind."""
        missing: list[str] = []
        for _ in range(2):  # a container that is put back may bring what else is put back
            holders, missing = self._walk(), []
            for path, values in packed.items():
                holder = holders.get(path)
                for name, value in values.items():
                    if holder is None or (holder.is_outside and name not in holder.items):
                        missing.append(f"{path}.{name}")
                        continue
                    self._start.pop((path, name), None)  # it is saved again, whatever becomes of it
                    old = holder.items.get(name)
                    try:
                        if (new := unpacker.unpack(value, old)) is not old:
                            holder.put(name, new)
                    except DAMAGED as error:
                        missing.append(f"{path}.{name} ({error})")
            if not missing:
                break
        return missing

    def _is_state(self, path: str, name: str, value: Any, holder: Holder) -> bool:
        if is_generator(value):
            return True
        if not holder.is_data and not holder.is_outside and _is_small_tensors(value):
            return True
        before = self._start.get((path, name), _NOTHING)
        now = _form(value, holder.is_data)
        if before == now:
            return False
        is_log = (
            holder.is_outside and isinstance(before, tuple) and isinstance(now, tuple) and before[0] == now[0] == "list"
        )
        return not (is_log and _has_grown(cast(Any, before), cast(Any, now)))

    # --- the walk ---------------------------------------------------------------------------------------------------

    def _walk(self) -> dict[str, Holder]:
        """Return all holders by path, and note what cannot be kept."""
        found: dict[str, Holder] = {}
        self.generators = {}
        seen: dict[int, Any] = {**self.passed}
        modules = set[nn.Module]() if self.model is None else {*self.model.modules()}
        pending = [(name, root, True) for name, root in reversed([*self.roots.items()])]
        while pending:
            path, value, is_root = pending.pop()
            if id(value) in seen:
                continue
            seen[id(value)] = value
            if isinstance(value, Dataset | Sampler | DataLoader):
                self.sources[id(value)] = cast(Any, value)
            if len(seen) - len(self.passed) > _MOST_OBJECTS:
                self.unkept[path] = f"more than {pluralize(_MOST_OBJECTS, 'object')} are within reach"
                break
            inner = list[tuple[str, Any, bool]]()
            for part, holder in self._holders(path, value, is_root, modules):
                plain = {name: held for name, held in holder.items.items() if _is_plain(held)}
                kept = {name: held for name, held in plain.items() if id(held) not in seen or isinstance(held, _ATOMS)}
                seen |= {id(held): held for held in kept.values() if is_generator(held) or isinstance(held, Tensor)}
                self.generators |= {f"{part}.{name}": held for name, held in kept.items() if is_generator(held)}
                if part in found:
                    kept = {**found[part].items, **kept}
                found[part] = Holder(kept, holder.put, holder.is_outside, holder.is_data)
                inner += [(f"{part}.{name}", held, False) for name, held in holder.items.items() if name not in plain]
            pending += reversed(inner)
        return found

    def _holders(self, path: str, value: Any, is_root: bool, modules: set[nn.Module]) -> Iterator[tuple[str, Holder]]:
        """Yield what one object holds."""
        is_ours = type(value).__module__.partition(".")[0] == "onecycle" and not isinstance(value, nn.Module)
        if isinstance(value, _PASSED) or is_ours:
            return
        if isinstance(value, FunctionType):
            yield from self._of_function(path, value)
        elif isinstance(value, MethodType | partial):
            parts = ("__self__", "__func__") if isinstance(value, MethodType) else ("func", "args", "keywords")
            yield path, Holder({name: getattr(value, name) for name in parts}, _cannot_put, is_data=self.is_data)
        elif isinstance(value, dict):
            items: dict[Any, Any] = value
            keys = {str(key): key for key in items}
            yield (
                path,
                Holder(
                    {str(key): held for key, held in items.items()},
                    partial(_put_item, items, keys),
                    is_data=self.is_data,
                ),
            )
        elif isinstance(value, list | tuple | deque):
            sequence: Any = value
            held = {str(i): item for i, item in enumerate(sequence)}
            yield path, Holder(held, partial(_put_at, sequence), is_data=self.is_data)
        elif isinstance(value, set | frozenset):
            held = {f"{type(item).__name__}-{i}": item for i, item in enumerate(cast(Any, value))}
            yield path, Holder(held, _cannot_put, is_data=self.is_data)
        elif isinstance(value, SystemRandom):
            self.unkept[path] = "it draws from the operating system"
        elif isinstance(value, Iterator):
            self.unkept[path] = f"{type(cast(Any, value)).__name__} is an iterator"
            if not is_installed(type(cast(Any, value)).__module__):
                del self.unkept[path]  # a user's class: its attributes are what it is
                yield from self._of_object(path, value, is_root, modules)
        else:
            yield from self._of_object(path, value, is_root, modules)

    def _of_object(self, path: str, value: Any, is_root: bool, modules: set[nn.Module]) -> Iterator[tuple[str, Holder]]:
        attributes: Any = getattr(value, "__dict__", None)
        kind: type[Any] = type(value)
        is_own = is_root or not is_installed(kind.__module__) or isinstance(value, Sampler | Dataset)
        if isinstance(attributes, dict):
            held: dict[str, Any] = dict(cast(dict[str, Any], attributes))
            if isinstance(value, nn.Module):
                held = _of_module(value, held, modules)
                yield path, Holder({"_hooks": _hooks(value)}, _cannot_put)
                is_own = True
            elif isinstance(value, DataLoader):
                loader: Any = value
                names = ("dataset", "sampler", "batch_sampler", "collate_fn", "worker_init_fn", "generator")
                held, is_own = {name: getattr(loader, name) for name in names if held.get(name) is not None}, True
            elif isinstance(value, Optimizer):
                # its own are saved by the names of the parameters; those of another within it are not
                kept = _OPTIMIZER if is_root else ("defaults",)
                held = {n: v for n, v in held.items() if n not in kept and not n.startswith(_OPTIMIZER_PRIVATE)}
                is_own = True
            if not is_own:
                held = {name: part for name, part in held.items() if is_generator(part) or not _is_plain(part)}
            yield path, Holder(held, partial(_put_attribute, value), is_data=self.is_data)
        for base in kind.__mro__:
            if not is_installed(base.__module__):
                yield from self._of_class(path, value, base)

    def _of_class(self, path: str, value: Any, base: type) -> Iterator[tuple[str, Holder]]:
        """Yield the slots of a user's object, the attributes of its class, and the globals of its methods."""
        name, own = f"class {base.__qualname__}", dict(vars(base))
        slots = {
            key: getattr(value, key)
            for key, held in own.items()
            if type(held).__name__ == "member_descriptor" and hasattr(value, key)
        }
        if slots:
            yield path, Holder(slots, partial(setattr, value), is_data=self.is_data)
        functions = [getattr(held, "__func__", None) or getattr(held, "fget", None) or held for held in own.values()]
        attributes = {
            key: held for key, held in own.items() if not key.startswith("__") and not hasattr(held, "__get__")
        }
        yield name, Holder(attributes, partial(setattr, base), is_outside=True, is_data=True)
        for function in functions:
            if isinstance(function, FunctionType):
                yield from self._of_function(f"{name}.{function.__name__}", function)

    def _of_function(self, path: str, function: FunctionType) -> Iterator[tuple[str, Holder]]:
        if is_installed(function.__module__):
            return
        names = function.__globals__
        used = {name: names[name] for name in global_names(function.__code__) if name in names}
        yield f"global {function.__module__}", Holder(used, names.__setitem__, is_outside=True, is_data=True)
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        held = {name: cell.cell_contents for name, cell in cells.items() if name != "__class__" and _is_full(cell)}
        yield f"{path}()", Holder(held, partial(_put_cell, cells), is_outside=True, is_data=True)
        defaults = {"defaults": function.__defaults__, "kwdefaults": function.__kwdefaults__, **vars(function)}
        yield f"{path}", Holder(defaults, partial(_put_attribute, function), is_outside=True, is_data=True)


_NOTHING = object()


def _of_module(module: nn.Module, held: dict[str, Any], modules: set[nn.Module]) -> dict[str, Any]:
    """Return what a module holds: of one that is not the model's, parameters and buffers too."""
    own = {name: part for name, part in held.items() if name not in _MODULE} | dict(module.named_children())
    if module in modules:
        return own
    return own | {**module._parameters, **module._buffers}  # pyright: ignore[reportPrivateUsage] -- as named_parameters would, of this module alone


def _hooks(module: nn.Module) -> list[Any]:
    return [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]  # pyright: ignore[reportPrivateUsage] -- there is no public way in


def _is_full(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not _NOTHING
    except ValueError:
        return False


def _put_attribute(target: Any, name: str, value: Any) -> None:
    if isinstance(target, nn.Module) and (isinstance(value, nn.Parameter) or name in target._buffers):  # pyright: ignore[reportPrivateUsage] -- there is no public way in
        setattr(target, name, value)
    elif name in ("defaults", "kwdefaults") and isinstance(target, FunctionType):
        raise ValueError(f"the {name} of {target.__qualname__} are others")
    else:
        target.__dict__[name] = value


def _put_item(target: dict[Any, Any], keys: dict[str, Any], name: str, value: Any) -> None:
    target[keys.get(name, name)] = value


def _put_at(target: Any, name: str, value: Any) -> None:
    if isinstance(target, tuple):
        raise ValueError("a tuple cannot be changed")
    target[int(name)] = value


def _put_cell(cells: dict[str, CellType], name: str, value: Any) -> None:
    cells[name].cell_contents = value


def _cannot_put(name: str, _: Any) -> None:
    raise ValueError(f"{name} cannot be replaced")


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value is data that a tree can hold, and no object to look into."""
    if isinstance(value, (*_ATOMS, Tensor, np.ndarray, np.generic)) or is_generator(value):
        return True
    if not isinstance(value, _CONTAINERS) or depth > 8:
        return False
    items: Any = [*value.keys(), *value.values()] if isinstance(value, dict) else value  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] -- of any types
    items = _first(items)
    return _all_atoms(items) or all(_is_plain(item, depth + 1) for item in items)


def _first(items: Any) -> Any:
    """Return the first of very many items, such as names of a million files; the others are taken to be like them."""
    return items if len(items) <= _MOST_ITEMS else [*islice(items, _LOOKED_AT)]


def _all_atoms(items: Any) -> bool:
    return set(map(type, items)) <= {*_ATOMS}


def _form(value: Any, is_data: bool) -> Any:
    """Return what is equal as long as the value is."""
    if isinstance(value, Tensor | np.ndarray):
        return _form_of_numbers(cast(Any, value), is_data)
    if is_generator(value):
        return id(value)
    if isinstance(value, _CONTAINERS):
        if len(value) > _MOST_ITEMS:  # pyright: ignore[reportUnknownArgumentType] -- of any types
            return _form_of_many(value)
        if isinstance(value, dict):
            return ("dict", *((repr(key), _form(item, is_data)) for key, item in cast(dict[Any, Any], value).items()))
        items = [_form(item, is_data) for item in cast(Any, value)]
        return (
            type(cast(Any, value)).__name__,
            *(sorted(items, key=repr) if isinstance(value, set | frozenset) else items),
        )
    return (type(value).__name__, repr(value)) if isinstance(value, (*_ATOMS, np.generic)) else id(value)


def _form_of_numbers(value: Any, is_data: bool) -> Any:
    about = (type(value).__name__, str(value.dtype), tuple(value.shape))
    if isinstance(value, Tensor) and (
        nn.parameter.is_lazy(value) or value.layout is not torch.strided or value.is_meta
    ):
        return about, id(value)
    if is_data and value.nbytes > _MOST_BYTES:
        return about, id(value), getattr(value, "_version", None)
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return about, repr(value) if value.dtype.hasobject else zlib.crc32(
        np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    )


def _form_of_many(value: Any) -> Any:
    try:
        return (type(value).__name__, len(value), hash((*value.items(),) if isinstance(value, dict) else (*value,)))
    except TypeError:  # something in it has no hash
        return (type(value).__name__, len(value), id(value))


def _has_grown(before: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    """Whether a list of numbers or texts, outside the fit, has only grown: it is a log, which steps do not read."""
    is_grown = len(now) > len(before) and now[: len(before)] == before
    return is_grown and not any(isinstance(item, tuple) and isinstance(item[0], tuple) for item in now[1:])


def _is_small_tensors(value: Any) -> bool:
    """Whether a value holds tensors or arrays, each small enough to be saved whether or not it has changed."""
    tensors = [each for each in _leaves(value) if isinstance(each, Tensor | np.ndarray)]
    return bool(tensors) and all(tensor.nbytes <= _ALWAYS_BYTES for tensor in tensors)


def _holds_tensors(value: Any) -> bool:
    return any(isinstance(each, Tensor | np.ndarray) for each in _leaves(value))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = [*cast(dict[Any, Any], value).values()]
    if not isinstance(value, _CONTAINERS):
        yield value
    elif not _all_atoms(items := _first(value)):
        for item in items:
            yield from _leaves(item)
