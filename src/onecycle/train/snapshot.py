"""Put everything a training step can change back as it was."""

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.optim.optimizers import GroupedOptimizer
from onecycle.train.callbacks import Callback
from onecycle.train.python_state import plain_attributes


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
def restored_model(model: nn.Module) -> Generator[None]:
    """Restore parameters, gradients, `requires_grad`, buffers, and the modules' plain attributes.

    Plain attributes are numbers, text, `training` and tensors; not what a module keeps in lists and dicts of its own.
    """
    modules = list(model.modules())
    parameters = [(p, p.detach().clone(), p.requires_grad, p.grad, _copied(p.grad)) for p in model.parameters()]
    places = [module._buffers for module in modules] + [vars(module) for module in modules]  # pyright: ignore[reportPrivateUsage] -- the only way to put the very same tensor back
    tensors = [(place, name, t, t.clone()) for place in places for name, t in place.items() if isinstance(t, Tensor)]
    attributes = [plain_attributes(module) for module in modules]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value, trained, grad, grad_value in parameters:
                parameter.copy_(value)
                parameter.requires_grad = trained
                parameter.grad = grad if grad is None or grad_value is None else grad.copy_(grad_value)
            for place, name, tensor, value in tensors:
                place[name] = tensor.copy_(value)
        for module, values in zip(modules, attributes, strict=True):
            vars(module).update(values)


def copies(callbacks: Sequence[Callback]) -> list[Callback]:
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
