"""Callbacks: eight moments of a fit at which your code can take part.

A hook gets the `Fit`, whose fields say where the training stands. Hooks are looked up once, before the loop: one that
nobody overrides costs nothing. They are called for training batches only, not in validation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from onecycle.core.checks import positive
from onecycle.core.errors import SettingError, did_you_mean
from onecycle.core.record import Record
from onecycle.optim.optimizers import GroupedOptimizer
from onecycle.optim.schedules import Constant, Schedule


class Callback:
    """Override what you need; the others cost nothing.

    One that learns something on the way which later steps depend on gives it in `state`, so that a fit can be resumed.
    """

    order: ClassVar[int] = 0  # the lower ones' hooks are called first; those of the same order as they are listed

    def on_train_begin(self, fit: Fit) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, fit: Fit) -> None:
        """Before the first batch of an epoch; `fit.epoch` is its number, from 0."""

    def on_batch_begin(self, fit: Fit) -> None:
        """Before the forward pass; `fit.xb` and `fit.yb` may be replaced."""

    def on_backward_begin(self, fit: Fit) -> None:
        """Between loss and backward pass; `fit.loss` may be replaced."""

    def on_backward_end(self, fit: Fit) -> None:
        """Between backward pass and step; the gradients are there to be changed.

        With `fit.skip_step = True` there is no step on this batch, and the callbacks after this one are not asked.
        """

    def on_batch_end(self, fit: Fit) -> None:
        """After the step, the gradients forgotten."""

    def on_epoch_end(self, fit: Fit) -> None:
        """After validation; `fit.record` holds the epoch's row."""

    def on_train_end(self, fit: Fit) -> None:
        """After the last epoch, also where the fit was stopped."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it: JSON values and tensors, flat, by name."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


@dataclass
class Fit:
    """One fit, as its callbacks see it."""

    model: nn.Module
    opt: GroupedOptimizer
    epochs: int
    record: Record
    device: torch.device
    schedule: Schedule = field(default_factory=lambda: Constant([0.0]))  # callbacks may put another in its place
    batches: int = 0  # in an epoch, as the loader says; 0 where that is not known
    columns: tuple[str, ...] = ()  # the numbers of an epoch's row; none in the finder, which has no rows
    epoch: int = 0  # from 0, in this fit
    iteration: int = 0  # batches trained on before this one, in this fit
    num_batch: int = 0  # the same, in this epoch
    xb: Any = None
    yb: Any = None
    loss: Tensor = field(default_factory=lambda: torch.zeros(()))
    skip_step: bool = False  # no optimizer step on this batch
    stop_reason: str | None = None

    def stop(self, reason: str) -> None:
        """End the fit after this batch (or epoch); `reason` goes into the record and is shown."""
        self.stop_reason = self.stop_reason or reason


class GradientClip(Callback):
    """Scale the gradients so that their total 2-norm is at most `max_norm` (torch's `clip_grad_norm_`)."""

    def __init__(self, max_norm: float) -> None:
        self.max_norm = positive(max_norm, "GradientClip's max_norm")

    def on_backward_end(self, fit: Fit) -> None:
        """Clip before the step."""
        nn.utils.clip_grad_norm_(fit.model.parameters(), self.max_norm)


Hook = Callable[[Fit], None]


def overridden(callbacks: Sequence[Callback]) -> dict[str, tuple[Hook, ...]]:
    """For each hook the bound methods that somebody wrote, in the order of `callbacks` where theirs is the same.

    Raises SettingError for something that is no Callback, and for a method named like a hook that does not exist.
    """
    for callback in callbacks:
        if not isinstance(callback, Callback):  # pyright: ignore[reportUnnecessaryIsInstance] -- the list is the user's
            raise SettingError(f"callbacks: {callback!r} is not a Callback; derive its class from onecycle.Callback")
        for name in dir(callback):
            if name.startswith("on_") and name not in HOOKS:
                kind = type(callback).__name__
                raise SettingError(f"{kind} has no hook {name} to override{did_you_mean(name, HOOKS)}")
    callbacks = sorted(callbacks, key=lambda callback: callback.order)
    return {
        name: tuple(getattr(cb, name) for cb in callbacks if getattr(type(cb), name) is not getattr(Callback, name))
        for name in HOOKS
    }
