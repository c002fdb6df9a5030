"""Python state that a captured step treats as constant: a step is captured again when it changes."""

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
_MAX_DEPTH = 4


def capture_key(model: nn.Module, *functions: Any) -> Any:
    """Return a value that changes when a captured step must be captured again."""
    trained = [(id(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return trained, [id(buffer) for buffer in model.buffers()], _read_by(model, functions)


def python_state(model: nn.Module, *functions: Any) -> Any:
    """Return state outside torch that a forward pass may change: replaying a captured step would not change it."""
    numpy: Any = np.random.get_state(legacy=False)["state"]
    return random.getstate(), numpy["key"].tobytes(), numpy["pos"], _read_by(model, functions)


def _read_by(model: nn.Module, functions: tuple[Any, ...]) -> Any:
    """The attributes of all modules, with the content of their lists and dicts, and what their code reads besides."""
    modules = [m for part in (model, *functions) if isinstance(part, nn.Module) for m in part.modules()]
    attributes = [[(name, _comparable(value)) for name, value in _user_attributes(module)] for module in modules]
    collector = _StateCollector()
    for kind in dict.fromkeys(map(type, modules)):
        collector.add_code(kind.forward, kind)
    for function in functions:
        collector.add_callable(function)
    return attributes, collector.values


class _StateCollector:
    """Collects what functions, their helpers and methods read besides their arguments, outside torch and NumPy."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._seen: set[Any] = set()

    def add_callable(self, function: Any) -> None:
        """Add what a function, partial, bound method or callable object reads when it is called."""
        self.values.append(id(function))
        if isinstance(function, partial):
            self.add_callable(function.func)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] -- a user's function
            self.values.append(_comparable([function.args, function.keywords]))
        elif isinstance(function, MethodType):
            self.values.append(_comparable(function.__self__))
            self.add_code(function.__func__, type(function.__self__))
        elif isinstance(function, FunctionType):
            self.add_code(function)
        elif _may_hold_settings(function) and not isinstance(function, nn.Module | type):
            self.values.append(_comparable(function))
            self.add_code(type(function).__call__, type(function))

    def add_code(self, function: Any, owner: type | None = None) -> None:
        """Add what a function reads: globals, closure, defaults; `owner` is the class whose method it is."""
        if not isinstance(function, FunctionType) or (function, owner) in self._seen or not _is_user_code(function):
            return
        self._seen.add((function, owner))
        names = _names(function.__code__)
        for name in names & function.__globals__.keys():
            self._add_value(function.__globals__[name], function, names)
        for value in (*_enclosed(function), *(function.__defaults__ or ()), function.__kwdefaults__):
            self._add_value(value, function, names)
        for name in names if owner is not None else ():
            self.add_code(getattr(owner, name, None), owner)

    def _add_value(self, value: Any, function: FunctionType, names: set[str]) -> None:
        if isinstance(value, FunctionType | MethodType | partial):
            self.add_callable(value)
        elif isinstance(value, ModuleType | type) and _is_user_code(value):
            if (key := (id(value), function)) not in self._seen:
                self._seen.add(key)
                for name in names & vars(value).keys():
                    self._add_value(vars(value)[name], function, names)
        else:
            self.values.append(_comparable(value))


def _names(code: CodeType) -> set[str]:
    """Names of the globals and attributes that code uses, functions inside it included."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def _enclosed(function: FunctionType) -> Iterable[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # still empty
            yield cell.cell_contents


def _user_attributes(module: nn.Module) -> Iterable[tuple[str, Any]]:
    """A module's attributes without torch's own."""
    return (
        (name, value)
        for name, value in vars(module).items()
        if not name.startswith("_") or name not in _TORCH_ATTRIBUTES
    )


_TORCH_ATTRIBUTES = frozenset(vars(nn.Module()))


def _comparable(value: Any, depth: int = 0) -> Any:
    """A comparable form of a value: plain values as they are, containers by content, anything else by identity."""
    if isinstance(value, _PLAIN):
        return value
    if depth < _MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return type(value).__name__, [_comparable(item, depth + 1) for item in value]
    if depth < _MAX_DEPTH and isinstance(value, dict):
        return [(_comparable(key, depth + 1), _comparable(item, depth + 1)) for key, item in value.items()]
    if depth < _MAX_DEPTH and not isinstance(value, _BY_IDENTITY) and _may_hold_settings(value):
        return id(value), _comparable(_attributes(value), depth + 1)
    return id(value)


_BY_IDENTITY = (Tensor, nn.Module, type, FunctionType, MethodType, ModuleType, partial)


def _attributes(value: Any) -> dict[str, Any]:
    slots = (name for kind in type(value).__mro__ for name in vars(kind).get("__slots__", ()))
    return {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})


def _may_hold_settings(value: Any) -> bool:
    """Whether it is an object that may hold a user's settings, as argparse.Namespace and SimpleNamespace do."""
    return _package(type(value)) not in ("torch", "numpy", "builtins")


def _is_user_code(code: Any) -> bool:
    """Whether a class, function or module belongs to neither Python nor torch nor NumPy."""
    return _package(code) not in _OTHERS


_OTHERS = frozenset({"torch", "numpy", *sys.stdlib_module_names}) - {"__main__"}


def _package(code: Any) -> str:
    return str(code.__name__ if isinstance(code, ModuleType) else code.__module__).partition(".")[0]
