"""EMA: an average of the weights over the steps, to validate and predict with."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from onecycle.core.checks import check_fraction
from onecycle.train.callbacks.base import Callback
from onecycle.train.fit import Fit


class EMA(Callback):
    """Keep an exponential moving average of the weights: `average += (1 - d) * (weights - average)` after each step.

    `d` is `min(decay, (1 + t) / (10 + t))` at step t (from 0), so that the first weights are soon forgotten. The
    average is what is validated, what hooks see at an epoch's end, and what the model has after the fit; training goes
    on with the weights themselves. Buffers, such as BatchNorm's statistics, are the model's own. Averages of weights:
    Polyak and Juditsky 1992, https://doi.org/10.1137/0330046.
    """

    order: ClassVar[int] = 1  # at the end of an epoch the model changes after all others have seen the step

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = check_fraction(decay, "EMA's decay", "how much of the average stays at each step")
        self._steps = 0
        self._others: dict[str, Tensor] = {}  # by the parameter's name: the average, or while it is in use the weights
        self._in_use = False  # whether the average is in the model

    def on_train_begin(self, fit: Fit) -> None:
        """Start from the weights as they are."""
        self._steps, self._in_use = 0, False
        self._others = {name: weight.clone() for name, weight in _averaged(fit)}

    def on_epoch_begin(self, fit: Fit) -> None:
        """Train on the weights themselves."""
        if self._in_use:
            self._swap(fit)

    def on_batch_end(self, fit: Fit) -> None:
        """Average, and after an epoch's last step put the average into the model."""
        if not fit.skip_step:
            decay = min(self.decay, (1 + self._steps) / (10 + self._steps))
            weights, averages = self._both(fit)
            torch._foreach_lerp_(averages, weights, 1 - decay)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] -- as torch.optim.swa_utils itself does it
            self._steps += 1
        if fit.num_batch + 1 == fit.batches:
            self._swap(fit)

    def on_train_end(self, fit: Fit) -> None:
        """Leave the model with the average, also where the fit was stopped in the middle of an epoch."""
        if not self._in_use:
            self._swap(fit)

    def _swap(self, fit: Fit) -> None:
        for weight, other in zip(*self._both(fit), strict=True):
            kept = weight.clone()
            weight.copy_(other)
            other.copy_(kept)
        self._in_use = not self._in_use

    def _both(self, fit: Fit) -> tuple[list[Tensor], list[Tensor]]:
        """What the model holds, and what is kept here."""
        weights = dict(_averaged(fit))
        self._others = {name: other.to(weights[name].device) for name, other in self._others.items()}
        return [weights[name] for name in self._others], list(self._others.values())

    def state(self) -> dict[str, Any]:
        """The average, or while that is in the model the weights."""
        others = {f"other/{name}": other.clone() for name, other in self._others.items()}
        return {"steps": self._steps, "in_use": self._in_use, **others}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self._steps, self._in_use = state["steps"], state["in_use"]
        self._others = {name[6:]: value.clone() for name, value in state.items() if name.startswith("other/")}


def _averaged(fit: Fit) -> list[tuple[str, Tensor]]:
    named = fit.model.named_parameters()
    return [(name, weight.detach()) for name, weight in named if weight.requires_grad and weight.is_floating_point()]
