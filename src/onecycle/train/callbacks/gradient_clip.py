"""GradientClip: limit the norm of the gradients."""

from typing import Any

from torch import nn

from onecycle.core.checks import check_positive
from onecycle.train.callbacks.base import Callback
from onecycle.train.fit import Fit


class GradientClip(Callback):
    """Scale the gradients so that their total 2-norm is at most `max_norm`.

    With g all gradients as one vector, g becomes `g * min(1, max_norm / |g|)`, see torch's `clip_grad_norm_`
    (Pascanu et al. 2013, https://arxiv.org/abs/1211.5063).

    Args:
        max_norm: The largest norm, above 0.

    Raises:
        SettingError: If `max_norm` is not a finite number above 0.

    Example:
        >>> learn.fit_one_cycle(5, 1e-2, callbacks=GradientClip(1.0))
    """

    def __init__(self, max_norm: float) -> None:
        self.max_norm = check_positive(max_norm, "GradientClip's max_norm")

    def on_backward_end(self, fit: Fit) -> None:
        """Clip before the step."""
        nn.utils.clip_grad_norm_(fit.model.parameters(), self.max_norm)

    def resume_settings(self) -> dict[str, Any]:
        """Return the largest norm."""
        return {"max_norm": self.max_norm}
