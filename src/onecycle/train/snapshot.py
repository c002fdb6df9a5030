"""Restore everything that a trial of models, losses, metrics, callbacks and optimizers changes."""

import dis
import random
import sys
import sysconfig
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from operator import is_
from pathlib import Path
from types import BuiltinMethodType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.optim import Optimizer
from torch.utils.data import Dataset

from onecycle.core.device import preserve_all_rng_states
from onecycle.core.writes import WatchedMemory

Undo: TypeAlias = Callable[[], object]

_ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None), torch.Size, torch.dtype, torch.device})
_CONTAINERS: tuple[type[Any], ...] = (OrderedDict, dict, list, deque, set)
_PLAIN = {"argparse", "collections", "types"}  # packages of Python whose objects are namespaces and containers
_PYTHON = sysconfig.get_path("stdlib")
_LAZY: Any = LazyModuleMixin  # whose methods say that they are for a protocol, which no module is to a type checker
MANY_ITEMS = 10_000  # in a container, from which on numbers and texts are skipped at once
MOST_OBJECTS = 100_000  # that a trial looks at one by one, about 0.3 s
LARGE_ARRAY = 2**22  # bytes
_GLOBAL_OPS = ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL")


@contextmanager
def restoring(*objects: Any, generators: torch.device | None = None, is_trial: bool = False) -> Generator["Snapshot"]:
    """Restore, however the block ends, what the objects hold. The same objects hold what they held before.

    Restored are tensors with their gradients, NumPy arrays, containers, random generators, the attributes of modules,
    of optimizers and of the user's own objects, what the user's own functions refer to (closures and globals), and the
    class attributes of the user's own classes; all of it however deeply nested. Of other objects, such as those of
    installed packages, data sets and threads, an attribute refers to the same object again, whose own state is not
    restored. Nor are layers that are still lazy: what a first call makes of them stays.

    Args:
        objects: Modules, optimizers, functions, or other objects, whose attributes are restored whatever their class.
        generators: Restore the global generators of Python, NumPy and torch too, torch's also on this device.
        is_trial: Copy tensors and large arrays only when something is about to write to them, which costs time for
            each operator. The objects may change only in `Snapshot.trying`.

    Yields:
        The snapshot.
    """
    with ExitStack() as stack:  # each part is restored, even if Ctrl-C or an error interrupts another
        if generators is not None:
            stack.enter_context(preserve_all_rng_states(generators))
        stack.callback(torch.set_grad_enabled, torch.is_grad_enabled())
        snapshot = Snapshot(WatchedMemory() if is_trial else None)
        snapshot.add(*objects)
        if not is_trial:
            stack.callback(snapshot.put_back)
        yield snapshot


class Snapshot:
    """Copies of all that some objects hold.

    Args:
        memory: Where memory is copied when it is written to; None to copy everything at once.

    Attributes:
        is_complete: Whether the objects hold nothing that cannot be restored although they are likely to change it:
            iterators, files and models of TorchScript; and of a trial, whether they hold few enough objects.
        visited: Number of objects that were looked at one by one.
    """

    def __init__(self, memory: WatchedMemory | None = None) -> None:
        self.is_complete, self.visited, self.memory = True, 0, memory
        self._empty: list[Any] = []  # containers
        self._undo: list[Undo] = [partial(_clear, self._empty)]
        self._roots: set[int] = set()
        self._packages: set[str] = {*_PLAIN}
        self._seen: dict[int, Any] = {}  # the objects too, so that no other gets an id of theirs

    def add(self, *objects: Any) -> None:
        """Copy what these objects hold, other than what was copied already."""
        modules = [module for root in objects if isinstance(root, nn.Module) for module in root.modules()]
        self._roots |= {id(root) for root in objects}
        self._packages |= {_package(type(module).__module__) for module in modules} - {"torch", "onecycle"}
        for root in objects:
            self._seen.pop(id(root), None)  # it may have been no root before
        pending = [*objects, *modules]
        while pending:
            value = pending.pop()
            kind = type(value)
            if kind in _ATOMS or id(value) in self._seen:
                continue
            if kind in _CONTAINERS and not value:  # a module has a dozen for its hooks
                self._empty.append(value)
                continue
            self._seen[id(value)] = value
            self.visited += 1
            if self.memory is not None and self.visited > MOST_OBJECTS:
                self.is_complete = False
                return
            pending += self._save_container(value, kind) if kind in _CONTAINERS else self._save(value)

    @contextmanager
    def trying(self) -> Generator[None]:
        """Watch the memory in the block, if this is a trial's snapshot, and put everything back when the block ends."""
        try:
            with ExitStack() as stack:
                if self.memory is not None:
                    stack.enter_context(self.memory.watching())
                yield
        finally:
            self.put_back()

    def put_back(self) -> None:
        """Put back what was copied."""
        with torch.no_grad(), ExitStack() as stack:
            for undo in self._undo:
                stack.callback(undo)  # the last is called first
            if self.memory is not None:
                stack.callback(self.memory.put_back)

    def _save(self, value: Any) -> Iterable[Any]:
        """Copy what one object holds, and return the objects that it refers to."""
        if isinstance(value, torch.jit.ScriptModule):
            return self._save_script(value)
        if is_lazy_module(value):
            return ()
        if isinstance(value, nn.Module | Optimizer):
            return self._save_attributes(value)
        if isinstance(value, Tensor):
            self._save_tensor(value)
            return (value.__dict__,)
        if isinstance(value, np.ndarray):
            return self._save_array(value)  # pyright: ignore[reportUnknownArgumentType] -- of a user's object
        if (undo := _undo_generator(value)) is not None:
            self._undo.append(undo)
            return ()
        if isinstance(value, tuple | frozenset):
            return value  # pyright: ignore[reportUnknownVariableType] -- the same
        if isinstance(value, partial):
            return (value.func, value.args, value.keywords)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] -- the same
        if isinstance(value, MethodType | BuiltinMethodType):
            return (value.__self__, getattr(value, "__func__", None))
        if isinstance(value, FunctionType):
            return () if is_installed(value.__module__) else self._save_function(value)
        if isinstance(value, type):
            return () if is_installed(value.__module__) else self._save_class(value)
        if isinstance(value, ModuleType | Dataset):
            return ()
        if isinstance(value, bytearray | array):
            self._undo.append(partial(value.__setitem__, slice(None), value[:]))  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType] -- the same
            return ()
        return self._save_object(value)

    def _save_object(self, value: Any) -> Iterable[Any]:
        kind, module = next((kind for kind in _CONTAINERS if isinstance(value, kind)), None), type(value).__module__
        held = [] if kind is None else [*self._save_container(value, kind)]
        if id(value) in self._roots or _package(module) in self._packages or not is_installed(module):
            held += self._save_attributes(value)
        elif isinstance(value, Iterator):
            self.is_complete = False
        return held

    def _save_script(self, module: torch.jit.ScriptModule) -> Iterable[Any]:
        self.is_complete = False  # its other attributes are out of reach
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        self._undo += [partial(setattr, module, name, tensor) for name, tensor in tensors]
        return [module.__dict__, *(tensor for _, tensor in tensors)]

    def _save_tensor(self, tensor: Tensor) -> None:
        """Copy a tensor's memory, values and gradient, unless torch cannot write to it."""
        if nn.parameter.is_lazy(tensor) or tensor.is_inference() or tensor.is_nested:
            return
        if tensor.layout == torch.strided and not all(
            stride or size < 2 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
        ):
            return  # expanded
        try:
            is_leaf = tensor.is_leaf
        except RuntimeError:  # one of several views of a tensor that was written to, which torch does not take any more
            return
        self._undo.append(partial(_put_back_values, tensor, tensor.detach(), self._copied(tensor)))
        if is_leaf:
            grad = tensor.grad
            copied = None if grad is None else self._copied(grad)
            self._undo.append(partial(_put_back_grad, tensor, tensor.requires_grad, grad, copied))

    def _copied(self, tensor: Tensor) -> Tensor | None:
        """Return a copy of the values, or None if they are copied when something writes to them."""
        is_watched = self.memory is not None and self.memory.add(tensor)
        return None if is_watched else tensor.detach().clone()

    def _save_array(self, value: Any) -> Iterable[Any]:
        has_objects, is_memmap = value.dtype.hasobject, isinstance(value, np.memmap)
        memory = self.memory if value.nbytes >= LARGE_ARRAY and not has_objects else None
        if value.flags.writeable and not is_memmap and not (memory is not None and memory.add_array(value)):
            self._undo.append(partial(value.__setitem__, ..., value.copy()))
        return value.ravel().tolist() if has_objects else ()

    def _save_container(self, value: Any, kind: type[Any] = dict) -> Iterable[Any]:
        is_dict = issubclass(kind, dict)
        if kind in (dict, list):
            before = kind.copy(value)
        else:
            before = dict(kind.items(value)) if is_dict else [*kind.__iter__(value)]
        self._undo.append(partial(_put_back_dict if is_dict else _put_back_items, kind, value, before))
        held = before.values() if isinstance(before, dict) else before
        if len(held) < MANY_ITEMS:
            return held
        if _ATOMS.issuperset(map(type, held)):
            return ()
        rows = (item for item in held if type(item) not in _ATOMS)  # such as paths with their labels
        return [row for row in rows if type(row) is not tuple or not _ATOMS.issuperset(map(type, row))]

    def _save_attributes(self, value: Any) -> Iterable[Any]:
        held = list[Any]()
        if isinstance(attributes := getattr(value, "__dict__", None), dict):
            held += self._save_container(attributes)
        for base in type(value).__mro__:
            if not is_installed(base.__module__):
                held.append(base)
                held += self._save_slots(value, base)
        return held

    def _save_slots(self, value: Any, base: type) -> Iterable[Any]:
        for slot in vars(base).values():
            if isinstance(slot, MemberDescriptorType):
                try:
                    held = slot.__get__(value)
                except AttributeError:  # it is empty
                    continue
                self._undo.append(partial(slot.__set__, value, held))
                yield held

    def _save_function(self, function: FunctionType) -> Iterable[Any]:
        held = [function.__defaults__, function.__kwdefaults__, function.__dict__]
        for cell in function.__closure__ or ():
            try:
                held.append(cell.cell_contents)
            except ValueError:  # it is empty
                continue
            self._undo.append(partial(setattr, cell, "cell_contents", held[-1]))
        names = function.__globals__
        if is_installed(names.get("__name__")):  # a decorator of a package, with the name of the user's function
            return held
        for name in global_names(function.__code__):
            if name in names:
                self._undo.append(partial(names.__setitem__, name, names[name]))
                held.append(names[name])
        return held

    def _save_class(self, cls: type) -> Iterable[Any]:
        def attributes() -> dict[str, Any]:
            return {name: held for name, held in vars(cls).items() if not (name[:2] == name[-2:] == "__")}

        before = attributes()

        def put_back() -> None:
            now = attributes()
            for name in now.keys() - before.keys():
                delattr(cls, name)
            for name, held in before.items():
                if name not in now or now[name] is not held:
                    setattr(cls, name, held)

        self._undo.append(put_back)
        dunders = (held for held in vars(cls).values() if isinstance(held, FunctionType))
        # the functions of static and class methods and properties
        inner = (getattr(held, "__func__", None) or getattr(held, "fget", None) for held in before.values())
        return [*before.values(), *dunders, *inner]


def is_lazy_module(module: Any) -> bool:
    """Whether a module is a lazy layer whose parameters have no sizes yet."""
    return isinstance(module, _LAZY) and module.has_uninitialized_params()


def _clear(containers: list[Any]) -> None:
    for container in containers:
        if container:
            container.clear()


# the methods of the built-in type, since those of a subclass may do more
def _put_back_dict(kind: type[Any], value: Any, before: dict[Any, Any]) -> None:
    is_same = all(map(is_, kind.keys(value), before)) and all(map(is_, kind.values(value), before.values()))
    if kind.__len__(value) != len(before) or not is_same:
        kind.clear(value)
        kind.update(value, before)


def _put_back_items(kind: type[Any], value: Any, before: list[Any]) -> None:
    if kind.__len__(value) != len(before) or not all(map(is_, kind.__iter__(value), before)):
        kind.clear(value)
        (kind.update if kind is set else kind.extend)(value, before)


def _put_back_values(tensor: Tensor, memory: Tensor, values: Tensor | None) -> None:
    if tensor.layout == torch.strided and _layout(tensor) != _layout(memory):
        tensor.data = memory
    if values is not None:
        tensor.copy_(values)


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _put_back_grad(tensor: Tensor, requires_grad: bool, grad: Tensor | None, values: Tensor | None) -> None:
    """Restore the gradient of a tensor that was a leaf."""
    if not tensor.is_leaf:
        tensor.detach_()
    if tensor.requires_grad != requires_grad:
        tensor.requires_grad = requires_grad
    tensor.grad = grad if grad is None or values is None else grad.copy_(values)


def _undo_generator(value: Any) -> Undo | None:
    """Return a function that restores the state of a random generator; None for another object."""
    if isinstance(value, torch.Generator):
        return partial(value.set_state, value.get_state())
    if isinstance(value, np.random.Generator):
        value = value.bit_generator
    if isinstance(value, np.random.BitGenerator):
        return partial(setattr, value, "state", value.state)
    if isinstance(value, np.random.RandomState):
        return partial(value.set_state, value.get_state())
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return partial(value.setstate, value.getstate())
    return None


def _package(module: str) -> str:
    return module.partition(".")[0]


@cache
def is_installed(module: str | None) -> bool:
    """Return whether a module belongs to Python, to this library or to an installed package, not to the user."""
    package, file = _package(module or ""), getattr(sys.modules.get(module or ""), "__file__", None)
    if package in ("onecycle", "torch") or file is None:
        return package in ("onecycle", "torch", *sys.builtin_module_names)
    return Path(file).is_relative_to(_PYTHON) or not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


@cache
def global_names(code: CodeType) -> list[str]:
    """Return the names of the globals that a function's code reads or writes."""
    names = [str(step.argval) for step in dis.get_instructions(code) if step.opname in _GLOBAL_OPS]
    nested = [name for part in code.co_consts if isinstance(part, CodeType) for name in global_names(part)]
    return [*dict.fromkeys(names + nested)]
