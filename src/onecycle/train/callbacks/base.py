"""Callbacks: eight moments of a fit at which your code can take part.

A hook gets the `Fit`, whose fields say where the training stands. Hooks are looked up once, before the loop: one that
nobody overrides costs nothing. They are called for training batches only, not in validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from onecycle.errors import SettingError, did_you_mean
from onecycle.train.fit import Fit, Hook


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


def collect_hooks(callbacks: Sequence[Callback]) -> dict[str, tuple[Hook, ...]]:
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
