"""Describe objects by names and plain values, so that those of two processes can be compared.

Nothing of the user's is called: attributes are read from `__dict__` and slots, functions are described by their code
and by what it refers to. Large values are described by a checksum.
"""

import datetime
import enum
import hashlib
import json
import sys
import threading
import weakref
from argparse import Namespace
from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from onecycle.core.trees import GENERATORS
from onecycle.data.loaders import sha256_of
from onecycle.train.snapshot import global_names, is_installed

LATER_BYTES = 2**20  # tensors from this size on are hashed when the description is used
_MAX_TEXT, _MAX_ITEMS, _MAX_DEPTH, _MAX_OBJECTS = 60, 20, 8, 200_000
_SCALARS = frozenset({int, float, complex, bool, str, bytes, type(None)})
_CONSTANTS = (torch.Size, torch.dtype, torch.layout, torch.memory_format, range, slice, enum.Enum)
# of which there is nothing to compare: where files are, state that is not a setting, what stands for something else
_IGNORED = (PurePath, ModuleType, weakref.ReferenceType, type(threading.Lock()), type(threading.RLock()), *GENERATORS)
_TORCH_ATTRIBUTES = frozenset(vars(nn.Module()))
_MANY_ITEMS = 1_000  # of a container: from here on there is no time to look at each
_TABLES = ("pandas", "polars")
_MAX_MAPPED = 2**30  # bytes of a file in memory that are read to be compared
_OF_TORCH = (nn.Module, Dataset, Sampler)  # the objects of torch whose attributes are settings


class Description:
    """A description of some objects.

    Args:
        known: Objects that are described elsewhere, with what they are called.
        is_quick: Tell values apart only within this process, without hashing what is large.

    Attributes:
        values: Plain values by name; functions without arguments for those that take a while.
        opaque: What could not be looked into, by name.
        lengths: Of the containers and arrays of values that are in the description.
        visited: Number of values that were looked at one by one.
    """

    def __init__(self, known: Iterable[tuple[Any, str]] = (), is_quick: bool = False) -> None:
        self.values: dict[str, Any] = {}
        self.opaque: dict[str, str] = {}
        self.lengths: set[int] = set()
        self._known = {id(value): (value, text) for value, text in known}
        self._is_quick = is_quick
        self.visited = 0

    def add_known(self, value: Any, text: str) -> None:
        """Describe an object by this text from now on."""
        self._known[id(value)] = value, text

    def add(self, name: str, value: Any, depth: int = 0) -> None:
        """Describe a value, and what it consists of under longer names."""
        kind, self.visited = type(value), self.visited + 1
        if kind in _SCALARS:
            self.values[name] = _plain(value)
        elif isinstance(value, _IGNORED):
            return
        elif (known := self._known.get(id(value))) is not None:
            self.values[name] = known[1]
        elif depth > _MAX_DEPTH or self.visited > _MAX_OBJECTS:
            self._add_opaque(name, value)
        else:
            try:
                self._add_object(name, value, depth)
            except Exception:  # an object may raise anything when it is looked at: that must not end a fit
                self._add_opaque(name, value)

    def _add_object(self, name: str, value: Any, depth: int) -> None:
        if isinstance(value, Tensor):
            self.values[name] = self._tensor(name, value)
        elif isinstance(value, np.ndarray | np.generic):
            self._add_array(name, value, depth)
        elif isinstance(value, _CONSTANTS):
            self.values[name] = repr(value)
        elif isinstance(value, torch.device):
            self.values[name] = value.type
        elif isinstance(value, list | tuple | dict | set | frozenset) or type(value).__name__ == "deque":
            self._add_container(name, value, depth)
        else:
            self._known[id(value)] = value, f"the same as {name}"
            self._add_other(name, value, depth)

    def _add_other(self, name: str, value: Any, depth: int) -> None:
        """Describe a function, a class, or an object by its attributes."""
        if isinstance(value, FunctionType):
            self.add_function(name, value, depth)
        elif isinstance(value, MethodType):
            self.add_function(name, value.__func__, depth)
            self.add(f"{name}.self", value.__self__, depth + 1)
        elif isinstance(value, partial):
            arguments: dict[str, Any] = {str(i): each for i, each in enumerate(value.args)} | value.keywords  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType] -- of whatever
            self.add(name, value.func, depth + 1)  # pyright: ignore[reportUnknownMemberType] -- the same
            for key, argument in arguments.items():
                self.add(f"{name}({key})", argument, depth + 1)
        elif isinstance(value, type):
            self.values[name] = _qualified(value)
            self.add_class(value, depth)
        elif isinstance(value, BuiltinFunctionType):
            self.values[name] = _qualified(value)
        elif isinstance(value, torch.jit.ScriptModule):
            self.values[name] = f"scripted, {checksum(str(value.code))}"
        elif _has_settings(value):
            self.values[name] = _qualified(type(value))
            self.add_attributes(name, value, depth=depth)
        elif hasattr(type(value), "__array_interface__") or _package(value) in _TABLES:
            array = np.asarray(value)
            self._add_array(name, array, depth)
            if self._is_quick:  # the array is another each time
                self.values[name] = id(value), array.shape
        elif _package(value) in sys.stdlib_module_names and "0x" not in (text := repr(value)):
            self.values[name] = text
        else:
            self._add_opaque(name, value)

    def add_attributes(
        self,
        name: str,
        value: Any,
        left_out: Iterable[str] = (),
        depth: int = 0,
        with_values: bool = True,
    ) -> None:
        """Describe the attributes of an object, and the code of its class if that is the user's."""
        left_out = {*left_out, *(_TORCH_ATTRIBUTES if isinstance(value, nn.Module) else ())}
        self.add_class(type(value), depth, with_values)
        for key, held in [*attributes_of(value)]:
            if key not in left_out:
                self.add(f"{name}.{key}" if name else key, held, depth + 1)
        if isinstance(value, nn.Module):
            for key, held in [*value._parameters.items(), *value._buffers.items(), *value._modules.items()]:  # pyright: ignore[reportPrivateUsage] -- the names that are not of submodules
                self.add(f"{name}.{key}", held, depth + 1)

    def add_class(self, cls: type, depth: int = 0, with_values: bool = True) -> None:
        """Describe the methods and class attributes of the user's own classes among a class and its bases."""
        for base in cls.__mro__:
            if is_installed(base.__module__) or id(base) in self._known:
                continue
            name = base.__qualname__.rpartition("<locals>.")[2]
            while f"code of {name}" in self.values:  # of another class with that name
                name += "'"
            self._known[id(base)] = base, name
            held = {**vars(base)}
            functions = {key: getattr(value, "__func__", getattr(value, "fget", value)) for key, value in held.items()}
            functions = {key: each for key, each in functions.items() if isinstance(each, FunctionType)}
            codes = {key: _code_digest(function) for key, function in functions.items()}
            self.values[f"code of {name}"] = checksum(json.dumps(codes, sort_keys=True))
            for key, value in held.items() if with_values else ():
                if key in functions:
                    self._add_references(f"{name}.{key}", functions[key], depth)
                elif not key.startswith(("__", "_abc_")) and not _is_of_class(value):
                    self.add(f"{name}.{key}", value, depth + 1)

    def add_function(self, name: str, function: FunctionType, depth: int = 0) -> None:
        """Describe a function: one of a package by its name, the user's by its code and what that refers to."""
        self.values[name] = function.__qualname__.rpartition("<locals>.")[2]
        if is_installed(function.__module__):
            if isinstance(inner := getattr(function, "__wrapped__", None), FunctionType | partial):
                self.add(f"{name}.wrapped", inner, depth + 1)
            return
        self.values[f"code of {name}"] = _code_digest(function)
        self._add_references(name, function, depth)

    def _add_references(self, name: str, function: FunctionType, depth: int) -> None:
        """Describe the default arguments, variables of closures and globals of a function."""
        code = function.__code__
        positional = code.co_varnames[: code.co_argcount]
        defaults = function.__defaults__ or ()
        for key, held in zip(positional[len(positional) - len(defaults) :], defaults, strict=True):
            self.add(f"{name}({key})", held, depth + 1)
        for key, held in (function.__kwdefaults__ or {}).items():
            self.add(f"{name}({key})", held, depth + 1)
        for key, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                held = cell.cell_contents
            except ValueError:  # it is empty
                continue
            if key not in ("self", "__class__"):
                self.add(f"{name}.{key}", held, depth + 1)
        words = _words(code)
        for key in global_names(code):
            if key in function.__globals__:
                self._add_global(f"{name}.{key}", function.__globals__[key], words, depth + 1)

    def _add_global(self, name: str, value: Any, words: frozenset[str], depth: int) -> None:
        """Describe a global; of a namespace, a dict or an object only what the code mentions."""
        if id(value) in self._known or depth > _MAX_DEPTH:
            return
        if type(value) in _SCALARS or isinstance(value, list | tuple | Tensor | np.ndarray | FunctionType | partial):
            self.add(name, value, depth)
        elif isinstance(value, type):
            self.add_class(value, depth)
        elif isinstance(value, dict):
            for key in words & {key for key in value if isinstance(key, str)}:  # pyright: ignore[reportUnknownVariableType] -- of whatever
                self._add_global(f"{name}.{key}", value[key], words, depth + 1)
        elif isinstance(value, ModuleType):
            if not is_installed(value.__name__):
                for key in words & vars(value).keys():
                    self._add_global(f"{name}.{key}", vars(value)[key], words, depth + 1)
        elif isinstance(value, Namespace | SimpleNamespace) or not is_installed(type(value).__module__):
            for key, held in attributes_of(value):
                if key in words:
                    self._add_global(f"{name}.{key}", held, words, depth + 1)

    def _add_container(self, name: str, value: Any, depth: int) -> None:
        """Describe a short container by its items, any other by a checksum of theirs."""
        is_dict, is_set, count = isinstance(value, dict), isinstance(value, set | frozenset), len(value)
        keys = [*map(str, value)] if is_dict else [f"[{i}]" for i in range(min(count, _MAX_ITEMS))]
        items = [*value.values()] if is_dict else [*value]
        if not is_dict and not is_set and not all(type(item) is str for item in items):
            self.lengths.add(count)
        are_scalars = _SCALARS.issuperset(map(type, items))
        if self._is_quick and count > _MAX_ITEMS:
            told_by = [*map(id, items[-_MAX_ITEMS:])]
            if are_scalars:
                told_by = hash(frozenset(items) if is_set else ((*value,), (*items,)))
            self.values[name] = id(value), count, told_by
        elif are_scalars and (is_set or count <= _MANY_ITEMS):
            items = sorted(map(repr, items)) if is_set else [*map(_plain, items)]
            plain = dict(zip(keys, items, strict=True)) if is_dict else items
            text = json.dumps(plain)
            self.values[name] = plain if len(text) <= _MAX_TEXT else f"{count:,} items, {checksum(text)}"
        elif is_set:
            self.values[name] = f"{count:,} items"  # in no order
            self._add_opaque(name, value)
        elif count > _MAX_ITEMS and (digest := _digest_of_plain(keys if is_dict else [], items)) is not None:
            self.values[name] = f"{count:,} items, {digest}"
        elif count <= _MAX_ITEMS:
            for key, item in zip(keys, items, strict=True):
                self.add(f"{name}{key}" if not is_dict else f"{name}.{key}", item, depth + 1)
            if not count:
                self.values[name] = []
        else:
            digest = hashlib.sha256()
            outer, self.values = self.values, {}
            for key, item in zip(keys if is_dict else range(count), items, strict=True):
                self.add("", item, depth + 1)
                digest.update(f"{key} {resolved(self.values)}".encode())
                self.values = {}
            self.values = outer
            self.values[name] = f"{count:,} items, {digest.hexdigest()[:16]}"

    def _add_array(self, name: str, value: np.ndarray | np.generic, depth: int) -> None:
        if value.ndim:
            self.lengths.add(len(value))  # pyright: ignore[reportArgumentType] -- an array
        has_objects = value.dtype.hasobject or value.dtype.kind in "MmUSV"
        if self._is_quick and (has_objects or value.nbytes > LATER_BYTES):
            self.values[name] = id(value), value.shape
        elif has_objects:
            self.add(name, value.tolist(), depth + 1)
        elif isinstance(value, np.memmap) and value.nbytes > _MAX_MAPPED:
            self._add_opaque(name, value)
        else:
            later = partial(_describe_array, value)
            self.values[name] = later if value.nbytes >= LATER_BYTES else later()

    def _tensor(self, name: str, value: Tensor) -> Any:
        if value.ndim:
            self.lengths.add(len(value))
        if value.is_meta:
            return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
        if self._is_quick:
            return id(value), 0 if value.is_inference() else value._version, value.shape
        if value.layout is not torch.strided or value.is_quantized:
            return self._tensor(name, value.dequantize() if value.is_quantized else value.to_dense())
        later = partial(describe_tensor, value.detach())
        return later if value.numel() * value.element_size() >= LATER_BYTES else later()

    def _add_opaque(self, name: str, value: Any) -> None:
        if _package(value) not in ("torch", "onecycle", *sys.stdlib_module_names):
            self.opaque[name] = type(value).__name__
        self.values[name] = _qualified(type(value))


def _digest_of_plain(keys: list[str], items: list[Any]) -> str | None:
    """Return a checksum of many items, such as paths with labels; None if other objects are among them."""
    digest = hashlib.sha256()
    try:
        for part in (keys, items):
            for i in range(0, len(part), _MANY_ITEMS):
                digest.update(json.dumps(part[i : i + _MANY_ITEMS], default=_plain_object).encode())
    except (TypeError, ValueError, RecursionError):  # the last two for what contains itself
        return None
    return digest.hexdigest()[:16]


def _plain_object(value: Any) -> Any:
    """Return what JSON lacks as it has it. Raises TypeError for objects that must be looked into."""
    if isinstance(value, PurePath):
        return None
    if type(value) in _SCALARS:
        return _plain(value)
    if type(value) is Tensor and value.layout is torch.strided and not value.is_quantized and not value.is_meta:
        return describe_tensor(value.detach())
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        return _describe_array(value)
    if isinstance(value, datetime.date | datetime.timedelta) or (type(value).__name__ == "NAType"):
        return repr(value)
    raise TypeError(type(value).__name__)


def resolved(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a description, with those computed that take a while."""
    return {name: value() if callable(value) else value for name, value in values.items()}


def describe_tensor(tensor: Tensor) -> str:
    """Return the type and shape of a tensor, and a checksum."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} {sha256_of([tensor])[:16]}"


def _describe_array(array: Any) -> str:
    return f"{array.dtype} {list(array.shape)} {checksum(np.ascontiguousarray(array).data)}"


def attributes_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of an object's own attributes, those in slots too."""
    if isinstance(attributes := getattr(value, "__dict__", None), dict):
        yield from [*attributes.items()]
    for base in type(value).__mro__:
        for name, slot in vars(base).items():
            if isinstance(slot, MemberDescriptorType) and not is_installed(base.__module__):
                try:
                    yield name, slot.__get__(value)
                except AttributeError:  # it is empty
                    continue


@cache
def _words(code: CodeType) -> frozenset[str]:
    """Return the names and texts in a function's code, attributes and keys among them."""
    nested = [word for part in code.co_consts if isinstance(part, CodeType) for word in _words(part)]
    return frozenset([*code.co_names, *(part for part in code.co_consts if isinstance(part, str)), *nested])


def _code_digest(function: FunctionType) -> str:
    return checksum(_code_form(function.__code__, function.__doc__))


def _code_form(code: CodeType, doc: str | None) -> str:
    """Return what a function does, without its docstring, its names of local variables and where it is written."""
    constants = [*code.co_consts]
    if constants and doc is not None and constants[0] == doc:
        constants[0] = None
    return repr([code.co_code, code.co_names, code.co_freevars, [*map(_constant_form, constants)]])


def _constant_form(constant: Any) -> str:
    if isinstance(constant, CodeType):
        return _code_form(constant, None)
    return repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)


def _has_settings(value: Any) -> bool:
    """Whether the attributes of an object are worth comparing: not those of this library, of torch and of Python."""
    package = _package(value)
    if isinstance(value, DataLoader) or package in ("onecycle", "numpy", "pyarrow", *_TABLES):
        return isinstance(value, nn.Module)
    if package == "torch":
        return isinstance(value, _OF_TORCH)
    has_attributes = hasattr(value, "__dict__") or not is_installed(type(value).__module__)
    return has_attributes and (package not in sys.stdlib_module_names or isinstance(value, Namespace | SimpleNamespace))


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def _is_of_class(held: Any) -> bool:
    """Whether a class attribute comes with the class: a slot, a property and the like."""
    return hasattr(held, "__get__") or isinstance(held, MemberDescriptorType)


def _plain(value: Any) -> Any:
    """Return a scalar as JSON has it."""
    if type(value) is bytes:
        return f"{len(value):,} bytes, {checksum(value)}"
    if type(value) is complex or (type(value) is float and not abs(value) < float("inf")):
        return repr(value)
    return value


def _qualified(value: Any) -> str:
    return getattr(value, "__qualname__", type(value).__qualname__).rpartition("<locals>.")[2]


def checksum(content: Any) -> str:
    """Return a short checksum of bytes, of text, or of plain values."""
    if not isinstance(content, str | bytes | memoryview):
        content = repr(content)
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]
