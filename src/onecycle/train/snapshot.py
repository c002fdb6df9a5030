"""Restore everything that a trial of models, losses, metrics, callbacks and optimizers changes."""

import dis
import random
import sys
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from types import BuiltinMethodType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from onecycle.core.device import preserve_all_rng_states

Undo: TypeAlias = Callable[[], object]

_ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None), torch.Size, torch.dtype, torch.device})
_CONTAINERS: tuple[type[Any], ...] = (OrderedDict, dict, list, deque, set)
_LIBRARIES = (sys.stdlib_module_names | {"onecycle", "torch"}) - {"argparse", "collections", "types"}  # namespaces
_GLOBAL_OPS = ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL")


@contextmanager
def restoring(*objects: Any, generators: torch.device | None = None) -> Generator[None]:
    """Restore, however the block ends, what the objects hold. The same objects hold what they held before.

    Restored are tensors with their gradients, NumPy arrays, containers, random generators, the attributes of modules,
    of optimizers and of the user's own objects, what the user's own functions refer to (closures and globals), and the
    class attributes of the user's own classes; all of it however deeply nested. Of other objects, such as those of
    installed packages, files, data sets, threads and iterators, an attribute refers to the same object again, whose own
    state is not restored.

    Args:
        objects: Modules, optimizers, functions, or other objects, whose attributes are restored whatever their class.
        generators: Restore the global generators of Python, NumPy and torch too, torch's also on this device.
    """
    with ExitStack() as stack:  # each part is restored, even if Ctrl-C or an error interrupts another
        if generators is not None:
            stack.enter_context(preserve_all_rng_states(generators))
        for undo in _Snapshot(objects).undo:
            stack.callback(undo)
        yield


class _Snapshot:
    """Copies of all that some objects hold.

    Attributes:
        undo: Functions that put it back.
    """

    def __init__(self, objects: Iterable[Any]) -> None:
        self.undo: list[Undo] = []
        roots = [*objects]
        modules = [module for root in roots if isinstance(root, nn.Module) for module in root.modules()]
        self._roots = {id(root) for root in roots}
        self._packages = {_package(type(module).__module__) for module in modules} - _LIBRARIES
        seen: dict[int, Any] = {}  # the objects too, so that no other gets an id of theirs
        pending = [*roots, *modules]
        while pending:
            value = pending.pop()
            if type(value) not in _ATOMS and id(value) not in seen:
                seen[id(value)] = value
                pending += self._save(value)

    def _save(self, value: Any) -> Iterable[Any]:
        """Copy what one object holds, and return the objects that it refers to."""
        if isinstance(value, Tensor):
            self.undo += _undo_tensor(value)
            return ()
        if isinstance(value, np.ndarray):
            return self._save_array(value)  # pyright: ignore[reportUnknownArgumentType] -- of a user's object
        if (undo := _undo_generator(value)) is not None:
            self.undo.append(undo)
            return ()
        if isinstance(value, tuple | frozenset):
            return value  # pyright: ignore[reportUnknownVariableType] -- the same
        if isinstance(value, partial):
            return (value.func, value.args, value.keywords)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] -- the same
        if isinstance(value, MethodType | BuiltinMethodType):
            return (value.__self__, getattr(value, "__func__", None))
        if isinstance(value, FunctionType):
            return () if _is_installed(value.__module__) else self._save_function(value)
        if isinstance(value, type):
            return () if _is_installed(value.__module__) else self._save_class(value)
        if isinstance(value, ModuleType | Dataset):
            return ()
        return [*self._save_content(value), *self._save_attributes(value)]

    def _save_array(self, value: Any) -> Iterable[Any]:
        if value.flags.writeable and not isinstance(value, np.memmap):
            self.undo.append(partial(value.__setitem__, ..., value.copy()))
        return value.ravel().tolist() if value.dtype.hasobject else ()

    def _save_content(self, value: Any) -> Iterable[Any]:
        if isinstance(value, bytearray | array):
            self.undo.append(partial(value.__setitem__, slice(None), value[:]))  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType] -- the same
            return ()
        kind = next((kind for kind in _CONTAINERS if isinstance(value, kind)), None)
        return () if kind is None else self._save_container(value, kind)

    def _save_container(self, value: Any, kind: type[Any] = dict) -> Iterable[Any]:
        is_dict = issubclass(kind, dict)

        def content() -> list[Any]:
            return [*kind.items(value)] if is_dict else [*kind.__iter__(value)]

        before = content()

        def put_back() -> None:
            now = content()
            if len(now) == len(before) and all(map(_is_same_item if is_dict else _is_same, now, before)):
                return
            kind.clear(value)  # not those of a subclass, which may do more
            (kind.update if is_dict or kind is set else kind.extend)(value, before)

        self.undo.append(put_back)
        return [item for _, item in before] if is_dict else before

    def _save_attributes(self, value: Any) -> Iterable[Any]:
        kind, held = type(value), list[Any]()
        is_known = isinstance(value, nn.Module | Optimizer) or id(value) in self._roots
        if not is_known and _package(kind.__module__) not in self._packages and _is_installed(kind.__module__):
            return held
        if isinstance(attributes := getattr(value, "__dict__", None), dict):
            held += self._save_container(attributes)
        for base in kind.__mro__:
            if not _is_installed(base.__module__):
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
                self.undo.append(partial(slot.__set__, value, held))
                yield held

    def _save_function(self, function: FunctionType) -> Iterable[Any]:
        held = [function.__defaults__, function.__kwdefaults__, function.__dict__]
        for cell in function.__closure__ or ():
            try:
                held.append(cell.cell_contents)
            except ValueError:  # it is empty
                continue
            self.undo.append(partial(setattr, cell, "cell_contents", held[-1]))
        names = function.__globals__
        for name in _global_names(function.__code__):
            if name in names:
                self.undo.append(partial(names.__setitem__, name, names[name]))
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

        self.undo.append(put_back)
        dunders = (held for held in vars(cls).values() if isinstance(held, FunctionType))
        # the functions of static and class methods and properties
        inner = (getattr(held, "__func__", None) or getattr(held, "fget", None) for held in before.values())
        return [*before.values(), *dunders, *inner]


def _is_same(a: object, b: object) -> bool:
    return a is b


def _is_same_item(a: tuple[object, object], b: tuple[object, object]) -> bool:
    return a[0] is b[0] and a[1] is b[1]


def _undo_tensor(tensor: Tensor) -> list[Undo]:
    """Return functions that restore a tensor's memory, values and gradient; none if torch cannot write to it."""
    if tensor.is_inference() or nn.parameter.is_lazy(tensor):
        return []
    is_strided = tensor.layout == torch.strided
    if is_strided and not all(stride or size < 2 for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
        return []  # expanded
    memory, value = tensor.detach(), tensor.detach().clone()
    is_leaf, requires_grad = tensor.is_leaf, tensor.requires_grad
    grad = tensor.grad if is_leaf else None
    grad_value = None if grad is None else grad.clone()

    @torch.no_grad()
    def put_back() -> None:
        if is_leaf and not tensor.is_leaf:
            tensor.detach_()
        if is_strided and (tensor.dtype, tensor.shape, tensor.stride(), tensor.data_ptr()) != (
            *(memory.dtype, memory.shape, memory.stride(), memory.data_ptr()),
        ):
            tensor.data = memory
        tensor.copy_(value)
        if is_leaf:
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad = requires_grad
            tensor.grad = grad if grad is None or grad_value is None else grad.copy_(grad_value)

    return [put_back]


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
def _is_installed(module: str | None) -> bool:
    """Return whether a module belongs to Python, to this library or to an installed package, not to the user."""
    if module is None or _package(module) in _LIBRARIES:
        return module is not None
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


@cache
def _global_names(code: CodeType) -> list[str]:
    """Return the names of the globals that a function's code reads or writes."""
    names = [str(step.argval) for step in dis.get_instructions(code) if step.opname in _GLOBAL_OPS]
    nested = [name for part in code.co_consts if isinstance(part, CodeType) for name in _global_names(part)]
    return [*dict.fromkeys(names + nested)]
