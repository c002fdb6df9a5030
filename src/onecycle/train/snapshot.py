"""Put everything a training step can change back as it was."""

import copy
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.optim.optimizer import GroupedOptimizer
from onecycle.train.callbacks.base import Callback


@contextmanager
def restored(opt: GroupedOptimizer, *modules: Any) -> Generator[None]:
    """Whatever the block does, and however it ends, restore the optimizer and those of `modules` that are modules."""
    opt_state = copy.deepcopy(opt.state_dict())
    try:
        with restored_model(nn.ModuleList([module for module in modules if isinstance(module, nn.Module)])):
            yield
    finally:
        opt.load_state_dict(opt_state)


@contextmanager
def restored_model(model: nn.Module, *others: Any) -> Generator[None]:
    """Restore all that the modules hold: attributes, parameters with their gradients, buffers, containers, tensors.

    What `others` hold is restored too: modules, and objects and functions with attributes of their own. The same
    objects hold what they held before. An object of any other kind is put back in its place, as it is then. Hooks are
    left alone.
    """
    grads = [(p, p.requires_grad, p.grad, _copied(p.grad)) for p in model.parameters()]
    contents: dict[int, tuple[Any, Any]] = {}
    tensors: dict[int, tuple[Tensor, Tensor]] = {}
    modules = [part for given in (model, *others) if isinstance(given, nn.Module) for part in given.modules()]
    for holder in (*modules, *(other for other in others if hasattr(other, "__dict__"))):
        held = vars(holder)
        contents[id(held)] = held, held.copy()
        _look_into((value for name, value in held.items() if name not in _HOOKS), contents, tensors)
    try:
        yield
    finally:
        for container, content in contents.values():
            container.clear()
            (container.extend if isinstance(container, list | deque) else container.update)(content)
        with torch.no_grad():
            for tensor, value in tensors.values():
                tensor.copy_(value)
            for parameter, trained, grad, grad_value in grads:
                parameter.requires_grad = trained
                parameter.grad = grad if grad is None or grad_value is None else grad.copy_(grad_value)


_CONTAINERS = frozenset({list, dict, set, deque, OrderedDict, defaultdict, Counter})  # none derived from them
_HOOKS = frozenset(name for name in vars(nn.Module()) if "hook" in name)  # torch's, which need not be looked into


def _look_into(
    held: Iterable[Any], contents: dict[int, tuple[Any, Any]], tensors: dict[int, tuple[Tensor, Tensor]]
) -> None:
    """Note what is in the containers among `held`, in those that they hold, and the numbers of all tensors."""
    for value in held:
        if isinstance(value, Tensor):
            if id(value) not in tensors and _can_change(value):
                tensors[id(value)] = value, value.detach().clone()
        elif isinstance(value, tuple):
            _look_into(value, contents, tensors)  # pyright: ignore[reportUnknownArgumentType] -- of a user's module
        elif type(value) in _CONTAINERS and id(value) not in contents:
            contents[id(value)] = value, value.copy()
            _look_into(value.values() if isinstance(value, dict) else value, contents, tensors)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType] -- the same


def _can_change(tensor: Tensor) -> bool:
    """Whether torch lets a tensor be written to: none made for inference, and none that repeats its memory."""
    if tensor.is_inference():
        return False
    if tensor.layout != torch.strided:
        return True
    return all(stride or size < 2 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def copy_callbacks(callbacks: Sequence[Callback]) -> list[Callback]:
    """Callbacks to run in place of `callbacks`, whose state stays as it is.

    What an attribute points to is copied where it can be; models, learners, files and the like are shared.
    """
    found: list[Callback] = []
    for callback in callbacks:
        stand_in = copy.copy(callback)
        vars(stand_in).update({name: _own(value) for name, value in vars(callback).items()})
        found.append(stand_in)
    return found


def _copied(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()


def _own(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, list | tuple | set):
        return type(value)(_own(item) for item in value)
    if isinstance(value, dict):
        return {key: _own(item) for key, item in value.items()}
    return value
