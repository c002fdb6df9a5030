"""GradientAccumulation: one optimizer step for several batches."""

from typing import Any, ClassVar

from torch import Tensor

from onecycle.core.checks import check_int
from onecycle.train.callbacks.base import Callback
from onecycle.train.fit import Fit


class GradientAccumulation(Callback):
    """Take one optimizer step for `n` batches, with the mean of their gradients weighted by rows.

    With `r_i` rows and gradient `g_i` in batch i, the step uses `sum(r_i * g_i) / sum(r_i)`. For a loss that is a mean
    over rows, and a model that treats each row by itself (BatchNorm does not), the steps equal those of batches `n`
    times as large. The last batches of an epoch step too if they are fewer than `n`. Learning rate and momentum advance
    with every batch; a step uses those of its last batch.

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
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}  # weighted gradients, by the parameter's name
        self._batches = 0  # how many are in the sums
        self._first_rows = 0  # rows of the first of them, whose weight is 1
        self._weight = 0.0  # sum of the weights

    def on_train_begin(self, fit: Fit) -> None:
        """Start with no gradients."""
        self._reset()

    def on_backward_end(self, fit: Fit) -> None:
        """Add the gradients to the sums; set the mean as gradient if it is time to step, else skip the step."""
        rows = len(fit.yb[0]) if isinstance(fit.yb, list | tuple) else len(fit.yb)
        self._first_rows = self._first_rows or rows
        weight = rows / self._first_rows
        self._batches, self._weight = self._batches + 1, self._weight + weight
        parameters = dict(fit.model.named_parameters())
        for name, parameter in parameters.items():
            grad, parameter.grad = parameter.grad, None
            if grad is None:
                continue
            total = self._sums.get(name)
            self._sums[name] = grad.mul_(weight) if total is None else total.to(grad.device).add_(grad, alpha=weight)
        if self._batches < self.n and fit.num_batch + 1 != fit.batches:
            fit.skip_step = True
            return
        for name, total in self._sums.items():
            parameters[name].grad = total.div_(self._weight)
        self._reset()

    def state(self) -> dict[str, Any]:
        """Return the gradients of the batches since the last step."""
        sums = {f"sum/{name}": total.clone() for name, total in self._sums.items()}
        return {"batches": self._batches, "rows": self._first_rows, "weight": self._weight, **sums}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self._batches, self._first_rows, self._weight = state["batches"], state["rows"], state["weight"]
        self._sums = {name[4:]: value.clone() for name, value in state.items() if name.startswith("sum/")}
