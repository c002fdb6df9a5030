"""One training step: forward, loss, backward, step, zero."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from onecycle.core.errors import SettingError, did_you_mean
from onecycle.train.callbacks import Fit, Hook

LossFunc: TypeAlias = Callable[[Any, Any], Tensor]
Forward: TypeAlias = Callable[[nn.Module, Any], Any]
"""From a model and its input to the model's output."""
Step: TypeAlias = Callable[[Any, Any], Tensor]
"""From a batch (x, y) to its loss, on the device."""

PRECISIONS = ("fp32", "bf16")


def plain_step(fit: Fit, loss_and_grads: Step) -> Step:
    """A function (x, y) → loss that trains `fit.model` on one batch, for a fit without hooks around the batch."""
    opt = fit.opt

    def step(xb: Any, yb: Any) -> Tensor:
        loss = loss_and_grads(xb, yb)
        opt.step()
        opt.zero_grad()
        return loss

    return step


def step_with_hooks(fit: Fit, loss_and_grads: Step, hooks: dict[str, tuple[Hook, ...]]) -> Step:
    """The same with callbacks before the batch, and between its parts."""

    def step(xb: Any, yb: Any) -> Tensor:
        fit.xb, fit.yb, fit.skip_step = xb, yb, False
        for hook in hooks["on_batch_begin"]:
            hook(fit)
        loss = fit.loss = loss_and_grads(fit.xb, fit.yb)
        for hook in hooks["on_backward_end"]:
            if not fit.skip_step:
                hook(fit)
        if not fit.skip_step:
            fit.opt.step()
        fit.opt.zero_grad()
        return loss

    return step


def eager(
    fit: Fit, loss_func: LossFunc, on_backward_begin: tuple[Hook, ...] = (), forward: Forward | None = None
) -> Step:
    """A function (x, y) → loss (detached) that sets the gradients: the reference, which always works."""
    model, forward = fit.model, forward or plain_forward

    def loss_and_grads(xb: Any, yb: Any) -> Tensor:
        loss = loss_func(outputs(model, forward, xb), yb)
        loss.backward()
        return loss.detach()

    def with_hooks(xb: Any, yb: Any) -> Tensor:
        loss = fit.loss = loss_func(outputs(model, forward, xb), yb)
        for hook in on_backward_begin:
            hook(fit)
        fit.loss.backward()
        return loss.detach()  # recorded as the loss function gave it

    return with_hooks if on_backward_begin else loss_and_grads


def outputs(model: nn.Module, forward: Forward, xb: Any) -> Any:
    """The model's outputs to train on: in the backward pass, what the loss gives them back loses what is too small.

    A classifier that is sure of itself has softmax gradients of 1e-40. Products of such denormal numbers take a CPU 300
    times as long, which made whole epochs of large batches a third slower (docs/engine.md).
    """
    found = forward(model, xb)
    if isinstance(found, Tensor) and found.grad_fn is not None and _may_be_slow(found):
        found.register_hook(_without_tiny)
    return found


def _may_be_slow(found: Tensor) -> bool:
    return found.is_cpu and found.numel() >= _MANY and found.dtype in (torch.float32, torch.bfloat16)


def _without_tiny(grad: Tensor) -> Tensor:
    return torch.hardshrink(grad, _TINY)


_MANY = 4096  # with fewer outputs the call takes as long as it spares
_TINY = 1e-30  # too little to move a weight by SGD or Adam; its products with weights on the way back stay above 1e-38


def plain_forward(model: nn.Module, xb: Any) -> Any:
    """The model's output for one input, or for a list of them."""
    return model(*xb) if isinstance(xb, list) else model(xb)


def bf16_forward(model: nn.Module, xb: Any) -> Any:
    """The same in bfloat16 where torch.autocast holds that safe; the output is float32 again, and so is the loss."""
    first = xb[0] if isinstance(xb, list) else xb
    with torch.autocast(first.device.type, dtype=torch.bfloat16):
        found = plain_forward(model, xb)
    return found.float() if isinstance(found, Tensor) and found.dtype is torch.bfloat16 else found


def forward_in(precision: str) -> Forward:
    """How to call a model in this precision: fp32 (what the weights are) or bf16. Raises SettingError for others."""
    if precision not in PRECISIONS:
        hint = did_you_mean(precision, PRECISIONS)
        raise SettingError(f'unknown precision "{precision}"; expected {" or ".join(PRECISIONS)}{hint}')
    return bf16_forward if precision == "bf16" else plain_forward
