"""The learning-rate finder (Leslie Smith's range test, https://arxiv.org/abs/1506.01186)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isnan
from typing import TYPE_CHECKING

from torch import Tensor

from onecycle.core.checks import check_int
from onecycle.core.lr_curve import LRCurve
from onecycle.core.record import Smoother
from onecycle.train.callbacks.base import Callback
from onecycle.train.fit import Fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class LRFindResult(LRCurve):
    """The result of the learning-rate finder.

    Attributes:
        lrs: The learning rate of each step (of the last layer group).
        losses: The smoothed training loss after each step.
        suggestion: The learning rate to train with, a float with the attribute `why`. Where the curve says nothing, it
            is 3e-3, with a warning.

    Example:
        >>> result = learn.lr_find()
        >>> result.plot()
        >>> learn.fit_one_cycle(1, result.suggestion)
    """

    def plot(self, skip_start: int = 10, skip_end: int = 5, suggestion: bool = True) -> Figure:
        """Plot the loss over the learning rate.

        Args:
            skip_start: Number of points left out at the start.
            skip_end: Number of points left out at the end.
            suggestion: Mark the suggested learning rate.

        Returns:
            The figure.

        Raises:
            SettingError: If fewer than two points are left.

        Example:
            >>> learn.lr_find().plot()
        """
        from onecycle.show.plots import plot_lr_find

        return plot_lr_find(self, skip_start, skip_end, suggestion)


class RangeTest(Callback):
    """Stop the fit after `num_it` batches or, with `stop_div`, if the smoothed loss is NaN or over 4 times its best."""

    def __init__(self, num_it: int, stop_div: bool) -> None:
        self.num_it, self.stop_div = num_it, stop_div
        self.smoother, self.best = Smoother(), float("inf")
        self.loss: Tensor | None = None

    def on_backward_begin(self, fit: Fit) -> None:
        """Save the loss before another callback replaces it."""
        self.loss = fit.loss.detach()

    def on_batch_end(self, fit: Fit) -> None:
        """Look at the loss. On a GPU this waits for the device, which the few steps of a range test can afford."""
        assert self.loss is not None  # on_backward_begin came first
        smooth = self.smoother.add([self.loss.item()])[0]
        if fit.iteration == 0 or smooth < self.best:
            self.best = smooth
        if self.stop_div and (smooth > 4 * self.best or isnan(smooth)):
            fit.stop("diverged")
        elif fit.iteration + 1 >= self.num_it:
            fit.stop("done")


def range_epochs(num_it: int, batches: int) -> int:
    """Return the number of epochs that `num_it` batches take. Raises SettingError for fewer than one batch."""
    return ceil(check_int(num_it, "num_it", least=1) / batches)
