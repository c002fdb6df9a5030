"""The state of a fit: the Fit that callbacks see, its Position between two steps, and the protocol to save it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from onecycle.core.choices import Mode
from onecycle.core.record import Record
from onecycle.optim.optimizer import GroupedOptimizer
from onecycle.optim.schedules import Annealed, Constant, Schedule, annealed


@dataclass
class Fit:
    """One fit, as its callbacks see it. Epochs, iterations and batches count from 0 in each fit.

    Attributes:
        model: The model being trained.
        opt: Its optimizer.
        epochs: How many epochs the fit has.
        record: What was recorded so far.
        device: Where the model is.
        schedule: Learning rates and momentum of each step; a callback may replace it.
        batches: Batches in an epoch, as the loader says; 0 if that is not known.
        columns: Names of the numbers in an epoch's row; empty in the LR finder, which has no rows.
        modes: "min" or "max" for those of them of which it is known whether low or high values are better.
        epoch: The current epoch.
        iteration: Batches trained on before this one.
        num_batch: The same, in this epoch.
        xb: Inputs of the current batch; `on_batch_begin` may replace them.
        yb: Targets of the current batch; `on_batch_begin` may replace them.
        loss: Loss of the current batch; `on_backward_begin` may replace it.
        skip_step: Set it to True to skip the optimizer step on this batch.
        stop_reason: Why the fit stops early, or None.
        anneal_request: Epochs that `anneal` asked for, until the loop applies it.
        meaning: Returns what the model's inputs and outputs mean, which is saved with its weights; None if not known.

    Example:
        >>> class StopAtNan(Callback):
        ...     def on_batch_end(self, fit: Fit) -> None:
        ...         if fit.loss.isnan():
        ...             fit.stop("the loss is NaN")
    """

    model: nn.Module
    opt: GroupedOptimizer
    epochs: int
    record: Record
    device: torch.device
    schedule: Schedule = field(default_factory=lambda: Constant([0.0]))
    batches: int = 0
    columns: tuple[str, ...] = ()
    modes: dict[str, Mode] = field(default_factory=dict[str, Mode])
    epoch: int = 0
    iteration: int = 0
    num_batch: int = 0
    xb: Any = None
    yb: Any = None
    loss: Tensor = field(default_factory=lambda: torch.zeros(()))
    skip_step: bool = False
    stop_reason: str | None = None
    anneal_request: int | None = None
    meaning: Callable[[], dict[str, Any] | None] = field(default_factory=lambda: lambda: None)

    @property
    def lr(self) -> float:
        """The learning rate of this step, that of the last layer group."""
        return self.opt.lr

    @property
    def mom(self) -> float | None:
        """The momentum of this step (Adam's first beta), that of the last layer group; None if there is none."""
        return self.opt.momentum

    def stop(self, reason: str) -> None:
        """Stop after this batch (or epoch).

        Args:
            reason: Text that is recorded and shown; the first reason wins.
        """
        self.stop_reason = self.stop_reason or reason

    def anneal(self, epochs: int) -> None:
        """Ask the loop to end the schedule early: from the next epoch on, anneal for `epochs` epochs.

        Safe to call from any thread: the loop applies the first request between two steps; later ones are ignored.

        Args:
            epochs: Number of epochs until the learning rate has reached the end of its schedule.
        """
        if self.anneal_request is None:
            self.anneal_request = epochs

    def apply_anneal_request(self, steps_per_epoch: int) -> None:
        """Replace the schedule as `anneal` asked, unless the fit ends as early anyway or is annealing already.

        The loop calls this between two steps.

        Args:
            steps_per_epoch: Number of batches in an epoch.
        """
        epochs = self.anneal_request
        if epochs is None:
            return  # nothing is written: a request that arrives at this moment must not be lost
        self.anneal_request = None
        if isinstance(self.schedule, Annealed):
            return
        next_epoch = self.epoch + 1
        epochs = min(epochs, self.epochs - next_epoch)
        if epochs < 1:
            return
        start, last = next_epoch * steps_per_epoch, self.epochs * steps_per_epoch
        self.schedule = annealed(self.schedule, start, epochs * steps_per_epoch, last)
        self.epochs = next_epoch + epochs
        self.record.settings = {**self.record.settings, "epochs": self.epochs, "annealed from step": start}


Hook = Callable[[Fit], None]
Hooks = dict[str, tuple[Hook, ...]]


@dataclass(frozen=True)
class Position:
    """A position between two steps of a fit.

    Attributes:
        epoch: The epoch under way.
        num_batch: Batches of that epoch that are done.
        iteration: Batches done since the fit began.
        seconds: Time the epoch took so far.
        generators: States of the random generators; empty if the epoch is about to seed them.
    """

    epoch: int = 0
    num_batch: int = 0
    iteration: int = 0
    seconds: float = 0.0
    generators: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


class Checkpointer(Protocol):
    """Saves a fit while it runs. `checkpoint/writer.py` has the implementation."""

    def begin_epoch(self, fit: Fit) -> None:
        """Note what the data are like before the first batch of an epoch, also of one that is resumed."""
        ...

    def begin(self, fit: Fit) -> None:
        """Look at what is to be saved, before the first step."""
        ...

    def check(self, fit: Fit) -> None:
        """Raise SettingError if the state cannot be saved, after the first step."""
        ...

    def steps_until_due(self, fit: Fit) -> int:
        """Return the number of steps that may be taken before `is_due` must be called again."""
        ...

    def is_due(self, fit: Fit) -> bool:
        """Whether to save now, in the middle of an epoch. Raises what writing the last checkpoint raised."""
        ...

    def save(self, position: Position) -> None:
        """Save the fit as it is now."""
        ...

    def end_epoch(self, position: Position) -> None:
        """Save the fit at the end of an epoch if a checkpoint is due. The epoch's row is recorded already."""
        ...

    def request(self) -> None:
        """Save as soon as possible. Called by a signal handler."""
        ...

    def fail(self, error: Exception) -> None:
        """Remember the error that the fit ends with."""
        ...

    def close(self) -> None:
        """Wait for pending writes. Raises what writing raised."""
        ...
