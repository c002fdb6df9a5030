"""What a fit was made of, in words for its record."""

from functools import partial
from typing import Any

from torch import nn
from torch.optim import Adam, AdamW

from onecycle.train.losses import loss_name


def describe(model: nn.Module, loss_func: Any, opt_func: Any, true_wd: bool) -> dict[str, Any]:
    """The names of model, loss and optimizer (Adam whose decay is decoupled is AdamW), and the number of parameters."""
    optimizer: Any = opt_func.func if isinstance(opt_func, partial) else opt_func
    optimizer = AdamW if true_wd and optimizer is Adam else optimizer
    return {
        "optimizer": getattr(optimizer, "__name__", repr(optimizer)),
        "loss": loss_name(loss_func),
        "model": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
