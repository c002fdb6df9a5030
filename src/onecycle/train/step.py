"""The objective of training, and the forward pass in fp32 or bf16."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_args

import torch
from torch import Tensor, nn

from onecycle.core.choices import Precision
from onecycle.core.nested import map_tensors, tensors_in
from onecycle.errors import SettingError, did_you_mean
from onecycle.train.metrics import Metric

LossFunc: TypeAlias = Callable[[Any, Any], Tensor]
Forward: TypeAlias = Callable[[nn.Module, Any], Any]
"""Maps a model and its input to the model's output."""
Gradients: TypeAlias = Callable[[Any, Any], Tensor]
"""Maps a batch (x, y) to its loss, detached, and sets the gradients of the model."""

# A classifier that is sure of itself has softmax gradients of 1e-40. Products of such denormal numbers take a CPU 300
# times as long, which made whole epochs of large batches a third slower (docs/engine.md).
_FLUSH_BELOW = 1e-30  # too small to move a weight by SGD or Adam; its products with weights stay above 1e-38
_FLUSH_FROM_NUMEL = 4096  # with fewer outputs the call takes as long as it saves


def plain_forward(model: nn.Module, xb: Any) -> Any:
    """Call the model with one input, or with a list of them."""
    return model(*xb) if isinstance(xb, list) else model(xb)


def bf16_forward(model: nn.Module, xb: Any) -> Any:
    """Call the model under bfloat16 autocast. Its outputs are float32 again, and so is the loss."""
    first = xb if isinstance(xb, Tensor) else tensors_in(xb)[0]
    with torch.autocast(first.device.type, dtype=torch.bfloat16):
        output = plain_forward(model, xb)
    if isinstance(output, Tensor):
        return output.float() if output.dtype is torch.bfloat16 else output
    return map_tensors(lambda part: part.float() if part.dtype is torch.bfloat16 else part, output)


def forward_in(precision: Precision) -> Forward:
    """Return the forward function for a precision. Raises SettingError for an unknown one."""
    if precision not in get_args(Precision):
        hint = did_you_mean(precision, get_args(Precision))
        raise SettingError(f'unknown precision "{precision}"; expected {" or ".join(get_args(Precision))}{hint}')
    return bf16_forward if precision == "bf16" else plain_forward


@dataclass(frozen=True)
class Objective:
    """The loss that is minimised, and the metrics that are measured.

    Attributes:
        loss_func: Function (outputs, targets) -> scalar loss.
        metrics: Functions (outputs, targets) -> number, for validation.
        forward: How the model is called.
        inverse_transform: Maps outputs and targets to the units that metrics see; None if they are the same.
    """

    loss_func: LossFunc
    metrics: Sequence[Metric] = ()
    forward: Forward = plain_forward
    inverse_transform: Callable[[Tensor], Tensor] | None = None

    def loss(self, model: nn.Module, xb: Any, yb: Any) -> Tensor:
        """Training loss of a batch: a forward pass whose backward pass drops denormal output gradients."""
        output = self.forward(model, xb)
        if isinstance(output, Tensor) and output.grad_fn is not None and _can_be_denormal(output):
            output.register_hook(_flush_denormals)
        return self.loss_func(output, yb)


def _can_be_denormal(output: Tensor) -> bool:
    is_float = output.dtype in (torch.float32, torch.bfloat16)
    return output.is_cpu and output.numel() >= _FLUSH_FROM_NUMEL and is_float


def _flush_denormals(grad: Tensor) -> Tensor:
    return torch.hardshrink(grad, _FLUSH_BELOW)
