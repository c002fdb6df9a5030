"""Which engine runs the steps: eager, or a captured one where that pays."""

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor

from onecycle.core.errors import SettingError, did_you_mean
from onecycle.train.callbacks import Fit, Hook
from onecycle.train.capture import CannotCaptureError, Captured, fingerprint
from onecycle.train.step import LossFunc, Step, eager, plain_step, step_with_hooks

ENGINES = ("auto", "eager", "fast")
# A captured step saves about 0.1 ms (docs/engine.md); capturing costs about 1.5 s once in a process, then 0.2 s.
_WORTH_THE_FIRST = 15_000
_WORTH_ANOTHER = 2_000


class Engine:
    """Makes the steps of a learner's fits; a captured step is kept from one epoch and fit to the next.

    `auto` captures on the CPU when the steps left earn it back, `fast` always, `eager` never. What cannot be captured
    stays eager, and one line says why.
    """

    def __init__(self, kind: str) -> None:
        if kind not in ENGINES:
            raise SettingError(f'unknown engine "{kind}"; expected auto, eager or fast{did_you_mean(kind, ENGINES)}')
        self.kind = kind
        self._captured: Captured | None = None
        self._refused: str | None = None
        self._refused_in: Fit | None = None  # it is not tried again in the same fit

    def step(
        self,
        fit: Fit,
        loss_func: LossFunc,
        hooks: dict[str, tuple[Hook, ...]],
        steps_left: int,
        say: Callable[[str], None],
    ) -> Step:
        """The function (x, y) → loss for the batches of the coming epoch."""
        loss_and_grads = eager(fit, loss_func, hooks["on_backward_begin"])
        if self._wanted(fit, steps_left) and self._refused_in is not fit:
            if hooks["on_backward_begin"]:
                self._refuse(fit, "a callback wants the loss before the backward pass", say)
            else:
                loss_and_grads = self._fast(fit, loss_func, loss_and_grads, say)
        if any(hooks[name] for name in ("on_batch_begin", "on_backward_begin", "on_backward_end", "on_batch_end")):
            return step_with_hooks(fit, loss_and_grads, hooks)
        return plain_step(fit, loss_and_grads)

    def _wanted(self, fit: Fit, steps_left: int) -> bool:
        if self.kind != "auto" or self._captured is not None:
            return self.kind != "eager"
        loaded = "torch.fx.experimental.proxy_tensor" in sys.modules
        return fit.device.type == "cpu" and steps_left >= (_WORTH_ANOTHER if loaded else _WORTH_THE_FIRST)

    def _fast(self, fit: Fit, loss_func: LossFunc, loss_and_grads: Step, say: Callable[[str], None]) -> Step:
        """Captures on the first batch; other shapes, and all batches where that fails, are left to `loss_and_grads`."""
        captured = self._captured
        if captured is not None and not captured.is_of(loss_func, fingerprint(fit.model)):
            captured = None

        def step(xb: Any, yb: Any) -> Tensor:
            nonlocal captured
            if captured is None and self._refused_in is not fit:
                try:
                    captured = self._captured = Captured(fit.model, loss_func, xb, yb)
                except CannotCaptureError as error:
                    self._refuse(fit, str(error), say)
            if captured is not None and captured.fits(xb, yb):
                return captured(xb, yb)
            return loss_and_grads(xb, yb)

        return step

    def _refuse(self, fit: Fit, reason: str, say: Callable[[str], None]) -> None:
        self._refused_in = fit
        if reason != self._refused:
            say(f"engine: eager, because {reason}")
        self._refused = reason
