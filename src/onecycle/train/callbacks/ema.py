"""EMA: an average of the weights over the steps, to validate and predict with."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from onecycle.core.checks import check_fraction
from onecycle.train.callbacks.base import Callback
from onecycle.train.fit import Fit


class EMA(Callback):
    """Keep an exponential moving average of the weights.

    After step t (from 0): `average += (1 - d) * (weights - average)` with `d = min(decay, (1 + t) / (10 + t))`, so that
    the first weights are soon forgotten. Validation and `on_epoch_end` hooks see the model with the average, and the
    model has it after the fit; training continues with the weights themselves. Only trainable floating-point
    parameters are averaged: buffers, such as BatchNorm's statistics, are the model's own. A parameter that is added or
    unfrozen during the fit is averaged from its value at that time on, and one that is changed while the model has the
    average keeps its new value. Averages of weights: Polyak and Juditsky 1992, https://doi.org/10.1137/0330046.

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
        self._averages: dict[nn.Parameter, Tensor] = {}
        self._weights: dict[nn.Parameter, Tensor] = {}  # the weights themselves, while the average is in the model
        self._in_use = False  # whether it is
        self._model: nn.Module | None = None
        self._loaded: dict[str, Tensor] = {}  # by parameter name, until the model is known

    def resume_settings(self) -> dict[str, Any]:
        """Return the decay."""
        return {"decay": self.decay}

    def on_train_begin(self, fit: Fit) -> None:
        """Start from the current weights."""
        self._steps, self._in_use, self._averages, self._weights, self._loaded = 0, False, {}, {}, {}
        self._follow(fit.model)

    def on_epoch_begin(self, fit: Fit) -> None:
        """Put the weights themselves back into the model."""
        self._take_loaded(fit.model)
        if self._in_use:
            weights, self._weights, self._in_use = self._own_weights(fit.model), {}, False
            for name, parameter in fit.model.named_parameters():
                if name in weights:
                    parameter.detach().copy_(weights[name])
                else:  # it is not the average that was put into the model
                    self._averages.pop(parameter, None)
        self._follow(fit.model)

    def on_batch_end(self, fit: Fit) -> None:
        """Update the average; after the last step of an epoch put it into the model."""
        if not fit.skip_step:
            decay = min(self.decay, (1 + self._steps) / (10 + self._steps))
            self._follow(fit.model)
            weights = [parameter.detach() for parameter in self._averages]
            torch._foreach_lerp_([*self._averages.values()], weights, 1 - decay)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] -- as torch.optim.swa_utils itself does it
            self._steps += 1
        if fit.num_batch + 1 == fit.batches:
            self._use(fit.model)

    def on_train_end(self, fit: Fit) -> None:
        """Leave the average in the model, also if the fit was stopped in the middle of an epoch."""
        if not self._in_use:
            self._use(fit.model)

    def _follow(self, model: nn.Module) -> None:
        """Average what is trained in the model now: new parameters from their present values, frozen ones as before."""
        self._take_loaded(model)
        self._model, before, self._averages = model, self._averages, {}
        for parameter in model.parameters():
            average = before.get(parameter)
            if average is not None and average.shape == parameter.shape:
                self._averages[parameter] = average.to(parameter)
            elif parameter.requires_grad and parameter.is_floating_point() and not is_lazy(parameter):
                self._averages[parameter] = parameter.detach().clone()

    def _use(self, model: nn.Module) -> None:
        """Put the average into the model."""
        self._follow(model)
        self._weights = {parameter: parameter.detach().clone() for parameter in self._averages}
        for parameter, average in self._averages.items():
            parameter.detach().copy_(average)
        self._in_use = True

    def _own_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Return by name the weights themselves, of the parameters that still are what the average made of them."""
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter in self._weights]
        return {
            name: self._weights[parameter]
            for name, parameter in named
            if torch.equal(parameter.detach(), self._averages[parameter].to(parameter))
        }

    def state(self) -> dict[str, Any]:
        """Return the average, or the weights while the average is in the model."""
        if self._model is None:
            others = dict[str, Tensor]()
        elif self._in_use:
            others = self._own_weights(self._model)
        else:
            self._follow(self._model)
            named = self._model.named_parameters()
            others = {name: self._averages[parameter] for name, parameter in named if parameter in self._averages}
        tensors = {f"other/{name}": other.clone() for name, other in others.items()}
        return {"steps": self._steps, "in_use": self._in_use, **tensors}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self._steps, self._in_use = state["steps"], state["in_use"]
        self._averages, self._weights = {}, {}
        self._loaded = {name[6:]: value for name, value in state.items() if name.startswith("other/")}
        if self._model is not None:
            self._take_loaded(self._model)

    def _take_loaded(self, model: nn.Module) -> None:
        if self._loaded:
            named = [(self._loaded[name], p) for name, p in model.named_parameters() if name in self._loaded]
            others, self._loaded = {p: other.to(p, copy=True) for other, p in named}, {}
            self._averages = {p: p.detach().clone() for p in others} if self._in_use else others
            self._weights = others if self._in_use else {}
