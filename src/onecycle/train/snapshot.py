"""Restore everything that a training step can change."""

import copy
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.train.callbacks.base import Callback

_CONTAINERS = frozenset({list, dict, set, deque, OrderedDict, defaultdict, Counter})  # but no subclasses of them
_HOOKS = frozenset(name for name in vars(nn.Module()) if "hook" in name)  # torch's own, which steps do not change


@contextmanager
def restoring(*objects: Any) -> Generator[None]:
    """Restore, however the block ends, what the objects hold.

    Restored are attributes, parameters with their gradients, buffers, and the contents of tensors and of (nested)
    containers. The same objects hold what they held before. An attribute of any other type refers to the same object
    again, whose own state is not restored. Hooks of modules are left alone.

    Args:
        objects: Modules, and functions or other objects that have attributes.
    """
    roots = [obj for obj in objects if isinstance(obj, nn.Module)]
    modules = [module for root in roots for module in root.modules()]
    parameters = [parameter for root in roots for parameter in root.parameters()]
    grads = [(p, p.requires_grad, p.grad, None if p.grad is None else p.grad.clone()) for p in parameters]
    contents: dict[int, tuple[Any, Any]] = {}
    tensors: dict[int, tuple[Tensor, Tensor]] = {}
    for holder in (*modules, *(obj for obj in objects if hasattr(obj, "__dict__"))):
        attributes = vars(holder)
        contents[id(attributes)] = attributes, attributes.copy()
        _collect((value for name, value in attributes.items() if name not in _HOOKS), contents, tensors)
    try:
        yield
    finally:
        for container, content in contents.values():
            container.clear()
            (container.extend if isinstance(container, list | deque) else container.update)(content)
        with torch.no_grad():
            for tensor, value in tensors.values():
                tensor.copy_(value)
            for parameter, requires_grad, grad, grad_value in grads:
                parameter.requires_grad = requires_grad
                parameter.grad = grad if grad is None or grad_value is None else grad.copy_(grad_value)


def _collect(
    values: Iterable[Any], contents: dict[int, tuple[Any, Any]], tensors: dict[int, tuple[Tensor, Tensor]]
) -> None:
    """Add copies of the containers and tensors among and inside `values` to `contents` and `tensors`."""
    for value in values:
        if isinstance(value, Tensor):
            if id(value) not in tensors and _is_writable(value):
                tensors[id(value)] = value, value.detach().clone()
        elif isinstance(value, tuple):
            _collect(value, contents, tensors)  # pyright: ignore[reportUnknownArgumentType] -- of a user's module
        elif type(value) in _CONTAINERS and id(value) not in contents:
            contents[id(value)] = value, value.copy()
            _collect(value.values() if isinstance(value, dict) else value, contents, tensors)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType] -- the same


def _is_writable(tensor: Tensor) -> bool:
    """Return whether torch can write to a tensor: not one of inference mode, nor an expanded one."""
    if tensor.is_inference():
        return False
    if tensor.layout != torch.strided:
        return True
    return all(stride or size < 2 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def copy_callbacks(callbacks: Sequence[Callback]) -> list[Callback]:
    """Return copies to run instead of `callbacks`, whose state then stays as it is.

    Tensors and containers among the attributes are copied; models, learners, files and the like are shared.
    """
    copies = [copy.copy(callback) for callback in callbacks]
    for duplicate, callback in zip(copies, callbacks, strict=True):
        vars(duplicate).update({name: _copy_value(value) for name, value in vars(callback).items()})
    return copies


def _copy_value(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list | tuple | set):
        return type(value)(_copy_value(item) for item in value)
    if isinstance(value, dict):
        return {key: _copy_value(item) for key, item in value.items()}
    return value
