"""One training step: forward, loss, backward, step, zero."""

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor, nn

from onecycle.train.callbacks import Fit, Hook

LossFunc: TypeAlias = Callable[[Any, Any], Tensor]
Step: TypeAlias = Callable[[Any, Any], Tensor]


def eager_step(fit: Fit, loss_func: LossFunc, hooks: dict[str, tuple[Hook, ...]]) -> Step:
    """A function (x, y) → loss (detached, on the device) that trains `fit.model` on one batch."""
    model, opt = fit.model, fit.opt
    if not any(hooks[name] for name in ("on_batch_begin", "on_backward_begin", "on_backward_end", "on_batch_end")):

        def plain(xb: Any, yb: Any) -> Tensor:
            loss = loss_func(forward(model, xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
            return loss.detach()

        return plain

    def with_hooks(xb: Any, yb: Any) -> Tensor:
        fit.xb, fit.yb = xb, yb
        for hook in hooks["on_batch_begin"]:
            hook(fit)
        loss = fit.loss = loss_func(forward(model, fit.xb), fit.yb)
        for hook in hooks["on_backward_begin"]:
            hook(fit)
        fit.loss.backward()
        for hook in hooks["on_backward_end"]:
            hook(fit)
        opt.step()
        opt.zero_grad()
        return loss.detach()  # recorded as the loss function gave it

    return with_hooks


def forward(model: nn.Module, xb: Any) -> Any:
    """The model's output for one input, or for a list of them."""
    return model(*xb) if isinstance(xb, list) else model(xb)
