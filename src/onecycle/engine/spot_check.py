"""Compare a captured step with an eager one now and then, as a net below the proof.

A check takes as long as a few steps, and is due when it would cost less than one hundredth of the time since the last
one. If the two disagree, weights and optimizer go back to where they agreed last.
"""

import copy
import time
from typing import Any

import torch
from torch import Tensor

from onecycle.core.device import get_rng_states, set_rng_states
from onecycle.engine.capture import CapturedStep
from onecycle.train.fit import Fit, Position

_COST = 0.007  # of the time between two checks


class SpotCheck:
    """The last point at which a captured step agreed with an eager one.

    Args:
        captured: The step, which has just been captured.
        fit: The fit that it belongs to.

    Attributes:
        fit: The fit.
        position: Where in the fit that was.
    """

    def __init__(self, captured: CapturedStep, fit: Fit) -> None:
        self._captured, self.fit = captured, fit
        self._tensors = [*fit.model.parameters(), *fit.model.buffers(), *captured.trace.state]
        self._due, self._on_cpu = 0.0, fit.device.type == "cpu"
        self.save(fit)

    def is_due(self) -> bool:
        """Whether a check costs little enough now. On a GPU nothing is compared: it would round differently."""
        return self._on_cpu and time.perf_counter() >= self._due

    def passes(self, fit: Fit, xb: Any, yb: Any) -> bool:
        """Whether both give the same loss and gradients for a batch; if they do, this is the point to go back to."""
        started = time.perf_counter()
        if not self._captured.agrees(xb, yb):
            return False
        self.save(fit, started)
        return True

    def save(self, fit: Fit, started: float | None = None) -> None:
        """Remember weights, optimizer and generators."""
        started = time.perf_counter() if started is None else started
        self._values: list[Tensor] = [tensor.detach().clone() for tensor in self._tensors]
        self._opt_state = copy.deepcopy(fit.opt.state_dict())
        generators = get_rng_states(fit.device)
        self.position = Position(fit.epoch, fit.num_batch, fit.iteration, generators=generators)
        now = time.perf_counter()
        self._due = now + (now - started) / _COST

    @torch.no_grad()
    def restore(self, fit: Fit) -> None:
        """Go back to the last point."""
        for tensor, value in zip(self._tensors, self._values, strict=True):
            tensor.copy_(value)
        fit.opt.load_state_dict(self._opt_state)
        if fit.epoch == self.position.epoch:
            set_rng_states(self.position.generators, fit.device)
