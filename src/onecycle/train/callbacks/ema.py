"""EMA: an average of the weights over the steps, to validate and predict with."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from onecycle.core.checks import check_fraction
from onecycle.train.callbacks.base import Callback
from onecycle.train.fit import Fit


class EMA(Callback):
    """Keep an exponential moving average of the weights.

    After step t (from 0): `average += (1 - d) * (weights - average)` with `d = min(decay, (1 + t) / (10 + t))`, so that
    the first weights are soon forgotten. Validation and `on_epoch_end` hooks see the model with the average, and the
    model has it after the fit; training continues with the weights themselves. Only trainable floating-point
    parameters are averaged: buffers, such as BatchNorm's statistics, are the model's own. Averages of weights: Polyak
    and Juditsky 1992, https://doi.org/10.1137/0330046.

    Args:
        decay: Fraction of the average that remains at each step, from 0 to 1.

    Raises:
        SettingError: If `decay` is not from 0 to 1.

    Example:
        >>> learn.fit_one_cycle(5, 1e-2, callbacks=EMA(0.99))
    """

    order: ClassVar[int] = 1  # at the end of an epoch the model changes after all other callbacks saw the step

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = check_fraction(decay, "EMA's decay", "how much of the average stays at each step")
        self._steps = 0
        self._others: dict[str, Tensor] = {}  # by parameter name: the average, or the weights while it is in the model
        self._in_use = False  # whether the average is in the model

    def on_train_begin(self, fit: Fit) -> None:
        """Start from the current weights."""
        self._steps, self._in_use = 0, False
        self._others = {name: weight.clone() for name, weight in _trainable(fit)}

    def on_epoch_begin(self, fit: Fit) -> None:
        """Put the weights themselves back into the model."""
        if self._in_use:
            self._swap(fit)

    def on_batch_end(self, fit: Fit) -> None:
        """Update the average; after the last step of an epoch put it into the model."""
        if not fit.skip_step:
            decay = min(self.decay, (1 + self._steps) / (10 + self._steps))
            weights, averages = self._pairs(fit)
            torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] -- as torch.optim.swa_utils itself does it
            self._steps += 1
        if fit.num_batch + 1 == fit.batches:
            self._swap(fit)

    def on_train_end(self, fit: Fit) -> None:
        """Leave the average in the model, also if the fit was stopped in the middle of an epoch."""
        if not self._in_use:
            self._swap(fit)

    def _swap(self, fit: Fit) -> None:
        for weight, other in zip(*self._pairs(fit), strict=True):
            old_weight = weight.clone()
            weight.copy_(other)
            other.copy_(old_weight)
        self._in_use = not self._in_use

    def _pairs(self, fit: Fit) -> tuple[list[Tensor], list[Tensor]]:
        """Return the model's tensors and `_others`, in the same order and on the model's device."""
        weights = dict(_trainable(fit))
        self._others = {name: other.to(weights[name].device) for name, other in self._others.items()}
        return [weights[name] for name in self._others], list(self._others.values())

    def state(self) -> dict[str, Any]:
        """Return the average, or the weights while the average is in the model."""
        others = {f"other/{name}": other.clone() for name, other in self._others.items()}
        return {"steps": self._steps, "in_use": self._in_use, **others}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self._steps, self._in_use = state["steps"], state["in_use"]
        self._others = {name[6:]: value.clone() for name, value in state.items() if name.startswith("other/")}


def _trainable(fit: Fit) -> list[tuple[str, Tensor]]:
    named = fit.model.named_parameters()
    return [(name, weight.detach()) for name, weight in named if weight.requires_grad and weight.is_floating_point()]
