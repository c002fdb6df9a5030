"""One training step: forward, loss, backward, step, zero."""

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor, nn

from onecycle.train.callbacks import Fit, Hook

LossFunc: TypeAlias = Callable[[Any, Any], Tensor]
Step: TypeAlias = Callable[[Any, Any], Tensor]
"""From a batch (x, y) to its loss, on the device."""


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
        fit.xb, fit.yb = xb, yb
        for hook in hooks["on_batch_begin"]:
            hook(fit)
        loss = fit.loss = loss_and_grads(fit.xb, fit.yb)
        for hook in hooks["on_backward_end"]:
            hook(fit)
        fit.opt.step()
        fit.opt.zero_grad()
        return loss

    return step


def eager(fit: Fit, loss_func: LossFunc, on_backward_begin: tuple[Hook, ...] = ()) -> Step:
    """A function (x, y) → loss (detached) that sets the gradients: the reference, which always works."""
    model = fit.model

    def loss_and_grads(xb: Any, yb: Any) -> Tensor:
        loss = loss_func(forward(model, xb), yb)
        loss.backward()
        return loss.detach()

    def with_hooks(xb: Any, yb: Any) -> Tensor:
        loss = fit.loss = loss_func(forward(model, xb), yb)
        for hook in on_backward_begin:
            hook(fit)
        fit.loss.backward()
        return loss.detach()  # recorded as the loss function gave it

    return with_hooks if on_backward_begin else loss_and_grads


def forward(model: nn.Module, xb: Any) -> Any:
    """The model's output for one input, or for a list of them."""
    return model(*xb) if isinstance(xb, list) else model(xb)
