"""What of Python's own a forward pass may read: a captured step took all of it as fixed."""

import random
from collections.abc import Iterable
from types import FunctionType
from typing import Any

import numpy as np
from torch import Tensor, nn

_PLAIN = (int, float, str, bool, bytes, type(None))
_DEEPEST = 4


def fingerprint(model: nn.Module, *functions: Any) -> Any:
    """When this differs, a step that was captured before must be captured again."""
    trained = [(id(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return trained, [id(buffer) for buffer in model.buffers()], _read_by(model, functions)


def python_state(model: nn.Module, *functions: Any) -> Any:
    """What a forward pass may move outside of torch: it would only do so while it is captured."""
    numpy: Any = np.random.get_state(legacy=False)["state"]
    return random.getstate(), numpy["key"].tobytes(), numpy["pos"], _read_by(model, functions)


def plain_attributes(module: nn.Module) -> dict[str, Any]:
    """The numbers, text and None that a module keeps as attributes, `training` among them."""
    return {name: value for name, value in vars(module).items() if isinstance(value, _PLAIN)}


def _read_by(model: nn.Module, functions: tuple[Any, ...]) -> Any:
    """The attributes of all modules, with what is in their lists and dicts, and the globals that their code names."""
    modules = [m for part in (model, *functions) if isinstance(part, nn.Module) for m in part.modules()]
    attributes = [[(name, _plain(value)) for name, value in _own(module)] for module in modules]
    read = [type(module).forward for module in modules] + [f for f in functions if isinstance(f, FunctionType)]
    return attributes, [_globals(function) for function in dict.fromkeys(read) if isinstance(function, FunctionType)]


def _own(module: nn.Module) -> Iterable[tuple[str, Any]]:
    """A module's attributes without what torch keeps for it."""
    return ((name, value) for name, value in vars(module).items() if not name.startswith("_") or name not in _TORCH)


_TORCH = frozenset(vars(nn.Module()))


def _globals(function: FunctionType) -> list[Any]:
    names, cells = function.__code__.co_names, function.__closure__ or ()
    named = [(name, _plain(function.__globals__[name])) for name in names if name in function.__globals__]
    return [*named, *(_plain(cell.cell_contents) for cell in cells)]


def _plain(value: Any, depth: int = 0) -> Any:
    """What can be compared of a value: plain values as they are, containers by content, anything else by identity."""
    if isinstance(value, _PLAIN):
        return value
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return type(value).__name__, [_plain(item, depth + 1) for item in value]
    if depth < _DEEPEST and isinstance(value, dict):
        return [(_plain(key, depth + 1), _plain(item, depth + 1)) for key, item in value.items()]
    if depth < _DEEPEST and not isinstance(value, Tensor | nn.Module | type | FunctionType) and _is_users(value):
        return id(value), _plain(vars(value), depth + 1)
    return id(value)


def _is_users(value: Any) -> bool:
    """Whether it is an object with attributes that somebody's own class made, such as a settings object."""
    return hasattr(value, "__dict__") and type(value).__module__.partition(".")[0] not in ("torch", "numpy", "builtins")
