"""Put everything a training step can change back as it was."""

import copy
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from onecycle.optim.optimizers import GroupedOptimizer


@contextmanager
def restored(
    model: nn.Module, opt: GroupedOptimizer, callbacks: Sequence[Any], shared: Sequence[Any]
) -> Generator[None]:
    """Whatever the block does, and however it ends, restore the model, the optimizer and the callbacks.

    `shared` are objects that callbacks may point to and that are not copied (the learner, the data).
    """
    opt_state = copy.deepcopy(opt.state_dict())
    kept = {id(thing): thing for thing in (*shared, opt, *model.modules(), *model.parameters())}
    callback_states = [copy.deepcopy(vars(callback), dict(kept)) for callback in callbacks]
    try:
        with restored_model(model):
            yield
    finally:
        opt.load_state_dict(opt_state)
        for callback, state in zip(callbacks, callback_states, strict=True):
            vars(callback).clear()
            vars(callback).update(state)


@contextmanager
def restored_model(model: nn.Module) -> Generator[None]:
    """Restore parameters, gradients, buffers, and the modules' plain attributes (numbers, text, `training`)."""
    modules = list(model.modules())
    parameters = [
        (p, p.detach().clone(), p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()
    ]
    buffers = [(m, name, b, b.clone()) for m in modules for name, b in m._buffers.items() if b is not None]  # pyright: ignore[reportPrivateUsage] -- the only way to put the very same tensor back
    attributes = plain_attributes(model)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value, grad, grad_value in parameters:
                parameter.copy_(value)
                parameter.grad = grad if grad is None or grad_value is None else grad.copy_(grad_value)
            for module, name, buffer, value in buffers:
                module._buffers[name] = buffer.copy_(value)  # pyright: ignore[reportPrivateUsage] -- see above
        for module, values in zip(modules, attributes, strict=True):
            vars(module).update(values)


def plain_attributes(model: nn.Module) -> list[dict[str, Any]]:
    """The numbers, text and None that each module keeps as attributes, `training` among them."""
    return [{k: v for k, v in vars(m).items() if isinstance(v, _PLAIN)} for m in model.modules()]


_PLAIN = (int, float, str, bool, type(None))
