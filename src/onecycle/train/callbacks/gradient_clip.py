"""GradientClip: limit the norm of the gradients."""

from torch import nn

from onecycle.core.checks import check_positive
from onecycle.train.callbacks.base import Callback
from onecycle.train.fit import Fit


class GradientClip(Callback):
    """Scale the gradients so that their total 2-norm is at most `max_norm` (torch's `clip_grad_norm_`)."""

    def __init__(self, max_norm: float) -> None:
        self.max_norm = check_positive(max_norm, "GradientClip's max_norm")

    def on_backward_end(self, fit: Fit) -> None:
        """Clip before the step."""
        nn.utils.clip_grad_norm_(fit.model.parameters(), self.max_norm)
