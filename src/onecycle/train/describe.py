"""What a fit was made of, in words for its record."""

from typing import Any

import torch
from torch import nn
from torch.optim import Adam, AdamW

from onecycle.core.checks import unwrap_partial
from onecycle.optim.optimizer import GroupedOptimizer
from onecycle.train.losses import loss_name


def describe(model: nn.Module, loss_func: Any, opt_func: Any, true_wd: bool) -> dict[str, Any]:
    """The names of model, loss and optimizer (Adam whose decay is decoupled is AdamW), and the number of parameters."""
    optimizer = unwrap_partial(opt_func)
    optimizer = AdamW if true_wd and optimizer is Adam else optimizer
    return {
        "optimizer": getattr(optimizer, "__name__", repr(optimizer)),
        "loss": loss_name(loss_func),
        "model": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def resume_signature(
    model: nn.Module, loss_func: Any, opt: GroupedOptimizer, device: torch.device
) -> dict[str, dict[str, Any]]:
    """What a fit is resumed with or not at all, part by part, and the machine, on which its last bits depend."""
    weights = {name: f"{list(tensor.shape)} {tensor.dtype}" for name, tensor in model.state_dict().items()}
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    settings = {name: value for name, value in opt.torch_opt.defaults.items() if isinstance(value, _PLAIN)}
    return {
        "model": {"class": type(model).__qualname__, **weights, "frozen": frozen},
        "loss": {"function": loss_name(loss_func)},
        "optimizer": {
            "class": type(opt.torch_opt).__name__,
            "groups": [len(group["params"]) for group in opt.groups],
            **{name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()},
        },
        "machine": {"device": device.type, "threads": torch.get_num_threads(), "torch": torch.__version__},
    }


_PLAIN = (int, float, str, bool, tuple, type(None))
