"""The base class of callbacks, and the collection of their hooks."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from onecycle.errors import SettingError, did_you_mean
from onecycle.train.fit import Fit, Hook, Hooks


class Callback:
    """Base class of callbacks: code that runs at eight moments of a fit.

    Override the hooks you need; a hook that no callback overrides costs nothing. Hooks are looked up once, before the
    fit. They run for training batches only, not in validation. What a callback has in its attributes is saved in
    checkpoints and restored by `Learner.resume`; one that overrides `state` and `load_state` decides itself.

    Attributes:
        order: Hooks of callbacks with a lower order run first; within one order they run in list order.

    Example:
        >>> class PrintLoss(Callback):
        ...     def on_epoch_end(self, fit):
        ...         print(fit.epoch, fit.record.losses[-1])
        >>> learn.fit(2, 1e-2, callbacks=PrintLoss())
    """

    order: ClassVar[int] = 0

    def on_train_begin(self, fit: Fit) -> None:
        """Run before the first epoch.

        Args:
            fit: State of the fit.
        """

    def on_epoch_begin(self, fit: Fit) -> None:
        """Run before the first batch of an epoch.

        Args:
            fit: State of the fit; `fit.epoch` is the number of the epoch, from 0.
        """

    def on_batch_begin(self, fit: Fit) -> None:
        """Run before the forward pass.

        Args:
            fit: State of the fit; `fit.xb` and `fit.yb` may be replaced.
        """

    def on_backward_begin(self, fit: Fit) -> None:
        """Run between the loss and the backward pass.

        Args:
            fit: State of the fit; `fit.loss` may be replaced. The record keeps the value of the loss function.
        """

    def on_backward_end(self, fit: Fit) -> None:
        """Run between the backward pass and the optimizer step.

        Args:
            fit: State of the fit; the gradients of `fit.model` may be changed. `fit.skip_step = True` skips the step
                of this batch, and this hook of the callbacks that follow.
        """

    def on_batch_end(self, fit: Fit) -> None:
        """Run after the optimizer step, when the gradients are reset.

        Args:
            fit: State of the fit.
        """

    def on_epoch_end(self, fit: Fit) -> None:
        """Run after validation.

        Args:
            fit: State of the fit; `fit.record` has the row of the epoch. `fit.stop(reason)` ends the fit.
        """

    def on_train_end(self, fit: Fit) -> None:
        """Run after the last epoch, and also if the fit was stopped or failed.

        Args:
            fit: State of the fit.
        """

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint saves of this callback.

        Returns:
            JSON values and tensors by name, not nested; empty if there is nothing to save.
        """
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Args:
            state: The values, as `state` returned them.
        """

    def resume_settings(self) -> dict[str, Any]:
        """Return what must be the same when a fit is resumed; a difference is refused by name.

        Returns:
            Values by name; by default all attributes. Those that change while the fit runs, and those that `state`
            returns, are not compared.
        """
        return dict(vars(self))


HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


def check_callbacks(callbacks: Sequence[Any], callback_fns: Sequence[Any]) -> None:
    """Raise SettingError for a class among the callbacks, and for a factory that is not a function."""
    for callback in callbacks:
        if isinstance(callback, type) and issubclass(callback, Callback):
            raise SettingError(f"callbacks: {callback.__name__} is a class; expected {callback.__name__}(...)")
    for factory in callback_fns:
        if isinstance(factory, Callback):
            raise SettingError(f"callback_fns: {type(factory).__name__}(...) is a callback; pass it as callbacks=")
        if not callable(factory):
            raise SettingError(
                f"callback_fns: {reprlib.repr(factory)} is not a function; expected a function (learner) -> callback"
            )


def are_own(hooks: Iterable[Hook]) -> bool:
    """Return whether all hooks are the library's own, which leave the model's parameters and the rates as they are."""
    return all(getattr(hook, "__module__", "").startswith("onecycle.") for hook in hooks)


def collect_hooks(callbacks: Sequence[Callback]) -> Hooks:
    """Return the overridden hooks by name, as bound methods sorted by `order`.

    Raises SettingError for an object that is not a Callback, and for a method named like a hook that does not exist.
    """
    for callback in callbacks:
        if not isinstance(callback, Callback):  # pyright: ignore[reportUnnecessaryIsInstance] -- the list is the user's
            raise SettingError(f"callbacks: {callback!r} is not a Callback; derive its class from onecycle.Callback")
        for name in dir(callback):
            if name.startswith("on_") and name not in HOOKS:
                raise SettingError(
                    f"{type(callback).__name__} has no hook {name} to override{did_you_mean(name, HOOKS)}"
                )
    callbacks = sorted(callbacks, key=lambda callback: callback.order)
    return {
        name: tuple(getattr(cb, name) for cb in callbacks if getattr(type(cb), name) is not getattr(Callback, name))
        for name in HOOKS
    }
