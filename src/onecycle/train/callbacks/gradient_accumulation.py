"""GradientAccumulation: one optimizer step for several batches."""

from typing import Any, ClassVar

from torch import Tensor, nn

from onecycle.core.checks import check_int
from onecycle.train.callbacks.base import Callback
from onecycle.train.fit import Fit


class GradientAccumulation(Callback):
    """Take one optimizer step for `n` batches, with the mean of their gradients weighted by rows.

    With `r_i` rows and gradient `g_i` in batch i, the step uses `sum(r_i * g_i) / sum(r_i)`. For a loss that is a mean
    over rows, and a model that treats each row by itself (BatchNorm does not), the steps equal those of batches `n`
    times as large. The last batches of an epoch step too if they are fewer than `n`. Learning rate and momentum advance
    with every batch; a step uses those of its last batch. The gradients of a layer that was frozen or removed since are
    left out of the step.

    Other callbacks see only accumulated gradients: their `on_backward_end` runs for the batches that step, so
    GradientClip clips the accumulated gradient wherever it stands in the list.

    Args:
        n: Number of batches for each step, at least 1.

    Raises:
        SettingError: If `n` is not an integer of at least 1.

    Example:
        >>> learn.fit_one_cycle(5, 1e-2, callbacks=GradientAccumulation(4))
    """

    order: ClassVar[int] = -1

    def __init__(self, n: int) -> None:
        self.n = check_int(n, "GradientAccumulation's n", least=1)
        self._model: nn.Module | None = None
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[nn.Parameter, Tensor] = {}  # weighted gradients
        self._loaded: dict[str, Tensor] = {}  # the same by the parameter's name, until the model is known
        self._batches = 0  # how many are in the sums
        self._first_rows = 0  # rows of the first of them, whose weight is 1
        self._weight = 0.0  # sum of the weights

    def resume_settings(self) -> dict[str, Any]:
        """Return the number of batches."""
        return {"n": self.n}

    def on_train_begin(self, fit: Fit) -> None:
        """Start with no gradients."""
        self._reset()
        self._model = fit.model

    def on_backward_end(self, fit: Fit) -> None:
        """Add the gradients to the sums; set the mean as gradient if it is time to step, else skip the step."""
        self._model = fit.model
        self._take_loaded(fit.model)
        rows = len(fit.yb[0]) if isinstance(fit.yb, list | tuple) else len(fit.yb)
        self._first_rows = self._first_rows or rows
        weight = rows / self._first_rows
        self._batches, self._weight = self._batches + 1, self._weight + weight
        for parameter in fit.model.parameters():
            grad, parameter.grad = parameter.grad, None
            if grad is None:
                continue
            total = self._sums.get(parameter)
            if total is None or total.shape != grad.shape:
                self._sums[parameter] = grad.mul_(weight)
            else:
                self._sums[parameter] = total.to(grad.device).add_(grad, alpha=weight)
        if self._batches < self.n and fit.num_batch + 1 != fit.batches:
            fit.skip_step = True
            return
        for _, parameter, total in self._pending(fit.model):
            if parameter.requires_grad:
                parameter.grad = total.div_(self._weight)
        self._reset()

    def _pending(self, model: nn.Module) -> list[tuple[str, nn.Parameter, Tensor]]:
        """Return the sums of what is in the model, by name and parameter."""
        named = [(name, p, self._sums.get(p)) for name, p in model.named_parameters()]
        return [(name, p, total) for name, p, total in named if total is not None and total.shape == p.shape]

    def state(self) -> dict[str, Any]:
        """Return the gradients of the batches since the last step."""
        pending = self._pending(self._model) if self._model is not None else []
        sums = {f"sum/{name}": total.clone() for name, _, total in pending}
        return {"batches": self._batches, "rows": self._first_rows, "weight": self._weight, **sums}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self._reset()
        self._batches, self._first_rows, self._weight = state["batches"], state["rows"], state["weight"]
        self._loaded = {name[4:]: value for name, value in state.items() if name.startswith("sum/")}
        if self._model is not None:
            self._take_loaded(self._model)

    def _take_loaded(self, model: nn.Module) -> None:
        if self._loaded:
            named = [(p, self._loaded[name]) for name, p in model.named_parameters() if name in self._loaded]
            self._sums, self._loaded = {p: total.to(p.device, copy=True) for p, total in named}, {}
