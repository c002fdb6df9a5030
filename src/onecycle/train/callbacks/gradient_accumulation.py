"""GradientAccumulation: one step for several batches, as if they were one."""

from typing import Any, ClassVar

from torch import Tensor

from onecycle.core.checks import check_int
from onecycle.train.callbacks.base import Callback
from onecycle.train.fit import Fit


class GradientAccumulation(Callback):
    """Step once for `n` batches, with the mean of their gradients, each weighed by its batch's rows.

    For a loss that is a mean over rows, and a model that treats each row by itself (BatchNorm does not), the steps are
    those of batches `n` times as large. The last batches of an epoch step too where they are fewer. Learning rate and
    momentum go on with every batch; a step takes those of its last one.

    Other callbacks see only whole gradients: their `on_backward_end` is called for the batches that step, so
    GradientClip clips what was accumulated, wherever it stands in the list.
    """

    order: ClassVar[int] = -1

    def __init__(self, n: int) -> None:
        self.n = check_int(n, "GradientAccumulation's n", least=1)
        self._forget()

    def _forget(self) -> None:
        self._sums: dict[str, Tensor] = {}  # by the parameter's name
        self._batches = 0  # in the sums
        self._rows = 0  # of the first of them, which counts as 1
        self._weight = 0.0  # what all of them count

    def on_train_begin(self, fit: Fit) -> None:
        """Start with no gradients."""
        self._forget()

    def on_backward_end(self, fit: Fit) -> None:
        """Take the gradients away, and give back their mean where it is time to step."""
        rows = len(fit.yb[0]) if isinstance(fit.yb, list | tuple) else len(fit.yb)
        self._rows = self._rows or rows
        self._batches, self._weight = self._batches + 1, self._weight + rows / self._rows
        parameters = dict(fit.model.named_parameters())
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                self._add(name, parameter.grad, rows / self._rows)
                parameter.grad = None
        if self._batches < self.n and fit.num_batch + 1 != fit.batches:
            fit.skip_step = True
            return
        for name, total in self._sums.items():
            parameters[name].grad = total.div_(self._weight)
        self._forget()

    def _add(self, name: str, grad: Tensor, weight: float) -> None:
        total = self._sums.get(name)
        if total is None:
            self._sums[name] = grad.mul_(weight)
        else:
            self._sums[name] = total.to(grad.device).add_(grad, alpha=weight)

    def state(self) -> dict[str, Any]:
        """The gradients of the batches since the last step."""
        sums = {f"sum/{name}": total.clone() for name, total in self._sums.items()}
        return {"batches": self._batches, "rows": self._rows, "weight": self._weight, **sums}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        self._batches, self._rows, self._weight = state["batches"], state["rows"], state["weight"]
        self._sums = {name[4:]: value.clone() for name, value in state.items() if name.startswith("sum/")}
