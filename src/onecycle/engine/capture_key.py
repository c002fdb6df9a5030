"""What of Python's own a forward pass may read: a captured step took all of it as fixed."""

import random
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

_PLAIN = (int, float, str, bool, bytes, type(None))
_DEEPEST = 4


def capture_key(model: nn.Module, *functions: Any) -> Any:
    """When this differs, a step that was captured before must be captured again."""
    trained = [(id(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return trained, [id(buffer) for buffer in model.buffers()], _read_by(model, functions)


def python_state(model: nn.Module, *functions: Any) -> Any:
    """What a forward pass may move outside of torch: it would only do so while it is captured."""
    numpy: Any = np.random.get_state(legacy=False)["state"]
    return random.getstate(), numpy["key"].tobytes(), numpy["pos"], _read_by(model, functions)


def _read_by(model: nn.Module, functions: tuple[Any, ...]) -> Any:
    """The attributes of all modules, with what is in their lists and dicts, and what the code reads besides."""
    modules = [m for part in (model, *functions) if isinstance(part, nn.Module) for m in part.modules()]
    attributes = [[(name, _plain(value)) for name, value in _own(module)] for module in modules]
    reading = _Reading()
    for kind in dict.fromkeys(map(type, modules)):
        reading.code(kind.forward, kind)
    for function in functions:
        reading.called(function)
    return attributes, reading.found


class _Reading:
    """Gathers what code reads besides its arguments, and its helpers and methods; not code of torch or NumPy."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self._seen: set[Any] = set()

    def called(self, given: Any) -> None:
        """What a function, partial, bound method or callable object reads when it is called."""
        self.found.append(id(given))
        if isinstance(given, partial):
            self.called(given.func)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] -- of whatever
            self.found.append(_plain([given.args, given.keywords]))
        elif isinstance(given, MethodType):
            self.found.append(_plain(given.__self__))
            self.code(given.__func__, type(given.__self__))
        elif isinstance(given, FunctionType):
            self.code(given)
        elif _is_users(given) and not isinstance(given, nn.Module | type):
            self.found.append(_plain(given))
            self.code(type(given).__call__, type(given))

    def code(self, function: Any, owner: type | None = None) -> None:
        """What a function reads: globals, what encloses it, defaults; `owner` is the class whose method it is."""
        if not isinstance(function, FunctionType) or (function, owner) in self._seen or not _is_users_own(function):
            return
        self._seen.add((function, owner))
        names = _names(function.__code__)
        for name in names & function.__globals__.keys():
            self._value(function.__globals__[name], function, names)
        for value in (*_enclosed(function), *(function.__defaults__ or ()), function.__kwdefaults__):
            self._value(value, function, names)
        for name in names if owner is not None else ():
            self.code(getattr(owner, name, None), owner)

    def _value(self, value: Any, function: FunctionType, names: set[str]) -> None:
        if isinstance(value, FunctionType | MethodType | partial):
            self.called(value)
        elif isinstance(value, ModuleType | type) and _is_users_own(value):
            if (key := (id(value), function)) not in self._seen:
                self._seen.add(key)
                for name in names & vars(value).keys():
                    self._value(vars(value)[name], function, names)
        else:
            self.found.append(_plain(value))


def _names(code: CodeType) -> set[str]:
    """The globals and attributes that code names, that of functions inside it too."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def _enclosed(function: FunctionType) -> Iterable[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # still empty
            yield cell.cell_contents


def _own(module: nn.Module) -> Iterable[tuple[str, Any]]:
    """A module's attributes without what torch keeps for it."""
    return ((name, value) for name, value in vars(module).items() if not name.startswith("_") or name not in _TORCH)


_TORCH = frozenset(vars(nn.Module()))


def _plain(value: Any, depth: int = 0) -> Any:
    """What can be compared of a value: plain values as they are, containers by content, anything else by identity."""
    if isinstance(value, _PLAIN):
        return value
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return type(value).__name__, [_plain(item, depth + 1) for item in value]
    if depth < _DEEPEST and isinstance(value, dict):
        return [(_plain(key, depth + 1), _plain(item, depth + 1)) for key, item in value.items()]
    if depth < _DEEPEST and not isinstance(value, _BY_IDENTITY) and _is_users(value):
        return id(value), _plain(_attributes(value), depth + 1)
    return id(value)


_BY_IDENTITY = (Tensor, nn.Module, type, FunctionType, MethodType, ModuleType, partial)


def _attributes(value: Any) -> dict[str, Any]:
    slots = (name for kind in type(value).__mro__ for name in vars(kind).get("__slots__", ()))
    return {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})


def _is_users(value: Any) -> bool:
    """Whether it is an object that may be somebody's settings: argparse's and SimpleNamespace are."""
    return _package(type(value)) not in ("torch", "numpy", "builtins")


def _is_users_own(code: Any) -> bool:
    """Whether a class, function or module is neither Python's own nor torch's nor NumPy's."""
    return _package(code) not in _OTHERS


_OTHERS = frozenset({"torch", "numpy", *sys.stdlib_module_names}) - {"__main__"}


def _package(code: Any) -> str:
    return str(code.__name__ if isinstance(code, ModuleType) else code.__module__).partition(".")[0]
