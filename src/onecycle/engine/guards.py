"""What a captured step depends on outside tensors, and whether it is still the same.

While a step is followed (`engine/follow.py`), each value that it reads becomes a guard. Before a captured step is used,
`Guards.changed()` compares them: the structure of the modules, attributes, globals, variables of closures, and the
contents of containers. It costs some microseconds.
"""

from __future__ import annotations

import enum
import operator
import sys
from collections.abc import Callable, Iterable
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any
from weakref import ReferenceType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from onecycle.engine.allowed import CONTAINERS, PLAIN_TYPES
from onecycle.engine.instrument import ABSENT
from onecycle.engine.trace import CannotCaptureError

_MAX_ITEMS, _MAX_BYTES, _MAX_DEPTH = 1000, 2**16, 6
_CONSTANTS = (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, range, slice, enum.Enum)
_OPERATORS = (type(Tensor.add), type(torch.ops.aten.add), np.ufunc)
_BY_IDENTITY = (type, ModuleType, ReferenceType, nn.Module, *_OPERATORS)
_OTHER_PACKAGES = {"torch", "numpy", *sys.stdlib_module_names} - {"__main__", "argparse", "types"}
_TORCH_ATTRIBUTES = frozenset(vars(nn.Module()))
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Guards:
    """The values that a step read, to be compared before it is replayed.

    Attributes:
        persistent: Containers and objects that existed before the step, by id.
    """

    def __init__(self) -> None:
        self.persistent: dict[int, Any] = {}
        self._read: dict[Any, tuple[Callable[[], Any], Any, Any, str]] = {}
        self._modules: list[_ModuleGuard] = []
        self._environment = _environment()

    def add(self, key: Any, read: Callable[[], Any], value: Any, label: str) -> None:
        """Guard `read()`, which returned `value` now. Raises CannotCaptureError if such a value cannot be compared.

        Args:
            key: Tells this read from others.
            read: Reads it again.
            value: What it read.
            label: Name for messages.
        """
        if key not in self._read:
            self._read[key] = read, value, self._admit(value, label), label

    def add_module(self, module: nn.Module, name: str, with_attributes: bool) -> None:
        """Guard parameters, buffers, children, hooks and mode of a module; with plain attributes if nobody reads them
        one by one."""
        try:
            self._modules.append(_ModuleGuard(module, name, with_attributes))
        except _NotComparableError as error:
            raise CannotCaptureError(f"{name} has an attribute that is {error}") from None
        self.persistent[id(module)] = module
        self.persistent |= {id(tensor): tensor for tensor in self._modules[-1].tensors}
        if self._modules[-1].has_hooks:
            raise CannotCaptureError(f"{name} has a hook")

    def tensors(self) -> Iterable[Tensor]:
        """The tensors that existed before the step, as far as it could read them."""
        return (value for value in self.persistent.values() if isinstance(value, Tensor))

    def changed(self) -> str | None:
        """Return the name of something that is not as it was, or None."""
        for guard in self._modules:
            if (label := guard.changed()) is not None:
                return label
        for read, value, form, label in self._read.values():
            now = read()
            if (now is not value or not _is_constant(now)) and _has_other_form(now, form):
                return label
        return None if _environment() == self._environment else "a setting of torch"

    def _admit(self, value: Any, label: str) -> Any:
        try:
            form = form_of(value)
        except _NotComparableError as error:
            raise CannotCaptureError(f"it reads {label}, {error}") from None
        self.persistent |= {id(item): item for item in _objects_in(value)}
        return form


class _NotComparableError(Exception):
    """A value may change without a trace; with a description."""


def form_of(value: Any, depth: int = 0) -> Any:
    """Return a form of a value that is equal as long as it means the same to a step. Raises _NotComparableError."""
    kind: Any = type(value)
    if kind in PLAIN_TYPES:
        return (kind, value.hex()) if kind is float else (kind, value)
    if isinstance(value, Tensor):
        if value.layout is not torch.strided:
            return id(value), value.shape, value.dtype
        return id(value), value.data_ptr(), value.shape, value.dtype, value.stride()
    if value is ABSENT or isinstance(value, _BY_IDENTITY):
        return id(value)
    if isinstance(value, BuiltinFunctionType):  # perhaps a method of a container
        owner = value.__self__
        return id(value), form_of(owner, depth + 1) if isinstance(owner, (*CONTAINERS, np.ndarray)) else id(owner)
    if isinstance(value, _CONSTANTS):
        return kind, repr(value)
    if isinstance(value, np.generic):
        return kind, value.tobytes()
    if isinstance(value, np.ndarray):
        if value.nbytes > _MAX_BYTES or value.dtype == object:
            raise _NotComparableError(f"a NumPy array of {value.nbytes} bytes (make it a buffer)")
        return kind, str(value.dtype), value.shape, value.tobytes()
    if depth > _MAX_DEPTH:
        raise _NotComparableError("which is nested too deeply")
    if kind in CONTAINERS or (isinstance(value, tuple) and hasattr(value, "_fields")):
        if len(value) > _MAX_ITEMS:
            raise _NotComparableError(f"a {kind.__name__} of {len(value)} items (make it a tensor)")
        items: Iterable[Any] = value.items() if isinstance(value, dict) else value
        identity = None if isinstance(value, tuple | frozenset) else id(value)
        return kind, identity, [form_of(item, depth + 1) for item in items]
    if isinstance(value, FunctionType):
        return (
            id(value),
            id(value.__code__),
            form_of(value.__defaults__, depth + 1),
            form_of(value.__kwdefaults__, depth + 1),
        )
    if isinstance(value, MethodType):
        return kind, id(value.__self__), form_of(value.__func__, depth + 1)
    if isinstance(value, partial):
        return kind, id(value), form_of(value.func, depth + 1), form_of((value.args, value.keywords), depth + 1)
    if is_plain_object(value):
        return id(value), kind
    raise _NotComparableError(f"an object of {class_name(kind)}")


def class_name(kind: type) -> str:
    """The name of a class as users know it."""
    return f"{kind.__module__.replace('torch._C', 'torch')}.{kind.__qualname__}"


def is_plain_object(value: Any) -> bool:
    """Whether an object consists of attributes only: an instance of classes written in Python, or a namespace."""
    kind = type(value)
    if isinstance(value, SimpleNamespace | property | staticmethod | classmethod | super):
        return True
    if kind.__module__.partition(".")[0] in _OTHER_PACKAGES:
        return issubclass(kind, torch.autograd.Function)
    written = [base for base in kind.__mro__ if base is not object]
    return all(base.__flags__ & _HEAP_TYPE for base in written) and any(_is_class_statement(base) for base in written)


_HEAP_TYPE = 1 << 9


def _is_class_statement(kind: type) -> bool:
    """Whether a class was made by a class statement: those have slots, or room for attributes."""
    return bool({"__weakref__", "__dict__", "__slots__"} & vars(kind).keys())


def _is_constant(value: Any) -> bool:
    """Whether a value cannot change while it is the same object."""
    return type(value) in PLAIN_TYPES or value is ABSENT or isinstance(value, (type, ModuleType))


def _objects_in(value: Any) -> Iterable[Any]:
    """The value, and what its containers, or the defaults and arguments of a function, hold."""
    yield value
    if isinstance(value, partial):
        held: Any = (*value.args, *value.keywords.values(), value.func)
    elif isinstance(value, FunctionType):
        held = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
    elif isinstance(value, BuiltinFunctionType):
        held = (value.__self__,)
    elif isinstance(value, (*CONTAINERS, tuple)):
        held = value.values() if isinstance(value, dict) else value
    else:
        return
    for item in held:
        yield from _objects_in(item)


class _ModuleGuard:
    """Compares what a module consists of: first by identity, which takes a microsecond."""

    def __init__(self, module: nn.Module, name: str, with_attributes: bool) -> None:
        attributes = vars(module)
        self._attributes, self._name, self._kind, self._module = attributes, name, type(module), module
        keys = list(attributes)
        internal = next((i for i, key in enumerate(keys) if key not in _TORCH_ATTRIBUTES), len(keys))
        self._count = len(keys) if with_attributes else internal  # torch creates its own attributes first
        self._has_all = with_attributes
        self._keys, self._values = keys[: self._count], list(attributes.values())[: self._count]
        self._plain = [key for key in self._keys if key not in _TORCH_ATTRIBUTES]
        self._lists = {key: attributes[key] for key in self._plain if isinstance(attributes[key], CONTAINERS)}
        self._forms = [form_of(value) for value in self._lists.values()]
        parts = [attributes["_parameters"], attributes["_buffers"], attributes["_modules"]]
        self._parts = [(part, list(part), list(part.values())) for part in parts]
        self.tensors: list[Tensor] = [tensor for part in parts[:2] for tensor in part.values() if tensor is not None]
        self._states = [_state_of(tensor) for tensor in self.tensors]
        self._hooks = [value for key, value in attributes.items() if key in _HOOKS]

    @property
    def has_hooks(self) -> bool:
        """Whether the module or one of its parameters has a hook."""
        return any(self._hooks) or any(hooks for *_, hooks in self._states)

    def changed(self) -> str | None:
        """Return the name of what is not as it was, or None."""
        attributes = self._attributes
        if not all(map(operator.is_, attributes.values(), self._values)) or self._are_more(attributes):
            now = list(attributes.values())[: self._count]
            if list(attributes)[: self._count] != self._keys or self._are_more(attributes):
                return f"an attribute of {self._name}"
            for key, value, before in zip(self._keys, now, self._values, strict=True):
                if value is not before and (key not in self._plain or _differ(value, before)):
                    return f"{self._name}.{key}"
            self._values = now
        for part, keys, values in self._parts:
            if len(part) != len(keys):
                return f"a layer, parameter or buffer of {self._name}"
            if keys and (not all(map(operator.is_, part.values(), values)) or list(part) != keys):
                return f"a layer, parameter or buffer of {self._name}"
        if self.tensors and [_state_of(tensor) for tensor in self.tensors] != self._states:
            return f"a parameter or buffer of {self._name}"
        if any(self._hooks):
            return f"a hook of {self._name}"
        if any(map(_has_other_form, self._lists.values(), self._forms)):
            return f"a list of {self._name}"
        return None if type(self._module) is self._kind else f"the class of {self._name}"

    def _are_more(self, attributes: dict[str, Any]) -> bool:
        """Whether attributes were added or removed, as far as they count."""
        return len(attributes) < self._count or (self._has_all and len(attributes) != self._count)


def _differ(a: Any, b: Any) -> bool:
    return _has_other_form(a, form_of(b))


def _has_other_form(value: Any, form: Any) -> bool:
    try:
        return form_of(value) != form
    except _NotComparableError:
        return True


def _state_of(tensor: Tensor) -> Any:
    hooks = bool(tensor._backward_hooks) or bool(getattr(tensor, "_post_accumulate_grad_hooks", None))  # pyright: ignore[reportPrivateUsage] -- there is no public way to ask
    stride = tensor.stride() if tensor.layout is torch.strided else None
    return tensor.requires_grad, tensor.shape, tensor.dtype, stride, hooks


def _environment() -> Any:
    """Settings of torch that decide which operators a step calls."""
    return (
        torch.get_default_dtype(),
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.mkldnn.enabled,
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.cuda.math_sdp_enabled(),
        torch_module._has_any_global_hook(),  # pyright: ignore[reportPrivateUsage] -- there is no public way to ask
        torch._C._autograd._top_saved_tensors_default_hooks(False),  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType] -- the same
        torch._C._len_torch_function_stack(),  # pyright: ignore[reportPrivateUsage] -- the same
    )
