"""The recorder fills a Record while a fit runs, and plots it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onecycle.core.lr_curve import LRCurve
from onecycle.core.record import Record, Smoother
from onecycle.errors import NonFiniteLossError, SettingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Recorder:
    """The numbers of the last fit or learning-rate finder run, as lists, and their plots.

    Args:
        record: Record to continue; by default an empty one.
        stop_at_nan: Raise NonFiniteLossError if a loss is NaN or infinite.

    Attributes:
        record: The numbers, which can be saved as JSON.

    Example:
        >>> learn.fit_one_cycle(1, 1e-2)
        >>> learn.recorder.losses[-1]
        >>> learn.recorder.plot_losses()
    """

    def __init__(self, record: Record | None = None, stop_at_nan: bool = True) -> None:
        self.record = record or Record()
        self._stop_at_nan = stop_at_nan
        self._smoother = Smoother()
        self._epoch_losses = torch.empty(0)  # of each batch of the current epoch, on the device
        self._read = 0  # how many of them are in the record

    @property
    def lrs(self) -> list[float]:
        """The learning rate of each batch (of the last layer group)."""
        return self.record.lrs

    @property
    def moms(self) -> list[float | None]:
        """The momentum of each batch; None if the optimizer has no momentum."""
        return self.record.moms

    @property
    def losses(self) -> list[float]:
        """The smoothed training loss after each batch."""
        return self.record.losses

    @property
    def val_losses(self) -> list[float | None]:
        """The validation loss of each epoch; None without a validation set."""
        return self.record.val_losses

    @property
    def metrics(self) -> list[list[float | None]]:
        """The metrics of each epoch; None without a validation set."""
        return self.record.metrics

    @property
    def stopped(self) -> str | None:
        """Why the fit ended before its last epoch, or None."""
        return self.record.stopped

    # --- called by the loop ------------------------------------------------------------------------------------------

    def prime_smoothing(self) -> None:
        """Continue the smoothing from the losses in the record."""
        self._smoother.add(self.record.batch_losses)

    def start_epoch(self, batches: int, device: torch.device, done: int = 0) -> Tensor:
        """Return a tensor for the losses of an epoch, shape (batches,), on the device.

        Args:
            batches: Number of batches.
            device: Device of the losses.
            done: Number of losses that are in the record already.
        """
        self._epoch_losses, self._read = torch.empty(batches, device=device), done
        return self._epoch_losses

    def read(self, done: int, lrs: list[float], moms: list[float | None]) -> None:
        """Add the losses of the epoch's first `done` batches to the record. Waits for the device.

        Args:
            done: Number of batches done in this epoch.
            lrs: Learning rate of each batch of the epoch.
            moms: Momentum of each batch of the epoch.

        Raises:
            NonFiniteLossError: At the first loss that is NaN or infinite.
        """
        losses: list[float] = self._epoch_losses[self._read : done].tolist()
        first, self._read = self._read, done
        self.record.lrs += lrs[first:done]
        self.record.moms += moms[first:done]
        self.record.batch_losses += losses
        self.record.losses += self._smoother.add(losses)
        for batch, loss in enumerate(losses, start=first):
            if self._stop_at_nan and not math.isfinite(loss):
                step = len(self.record.losses) - done + batch
                raise NonFiniteLossError(
                    f"the loss became {loss} at step {step} (epoch {len(self.record.epochs)}, batch {batch}), "
                    f"lr {lrs[batch]:.3g}; expected a finite number: try a lower learning rate (see lr_find), "
                    "or clip the gradients with GradientClip"
                )

    def rewind(self, done: int) -> None:
        """Forget the last losses of this epoch, whose batches are trained again.

        Args:
            done: Number of batches of the epoch to keep.
        """
        if (count := self._read - done) > 0:
            for column in (self.record.lrs, self.record.moms, self.record.batch_losses, self.record.losses):
                del column[-count:]
            self._read, self._smoother = done, Smoother()
            self.prime_smoothing()

    def end_epoch(self, epoch: int, batches: int, scores: list[float] | None, seconds: float) -> None:
        """Add the row of an epoch.

        Args:
            epoch: Number of the epoch.
            batches: Number of batches trained on.
            scores: Validation loss and metrics, or None without validation.
            seconds: Time the epoch took.
        """
        record = self.record
        val_loss, *metrics = scores or [None] * (1 + len(record.metric_names))
        record.epochs.append(epoch)
        record.nb_batches.append(batches)
        record.val_losses.append(val_loss)
        record.metrics.append(metrics)
        record.seconds.append(seconds)

    # --- plots -------------------------------------------------------------------------------------------------------

    def plot(self, skip_start: int = 10, skip_end: int = 5, suggestion: bool = False) -> Figure:
        """Plot the loss over the learning rate (log scale), after `lr_find`.

        Args:
            skip_start: Number of points left out at the start.
            skip_end: Number of points left out at the end.
            suggestion: Mark the suggested learning rate.

        Returns:
            The figure.

        Raises:
            SettingError: If nothing is recorded, or fewer than two points are left.

        Example:
            >>> learn.recorder.plot(suggestion=True)
        """
        from onecycle.show.plots import plot_lr_find

        return plot_lr_find(LRCurve(self._checked_record().lrs, self.losses), skip_start, skip_end, suggestion)

    def plot_lr(self, show_moms: bool = False) -> Figure:
        """Plot the learning rate of each batch.

        Args:
            show_moms: Plot the momentum beside it.

        Returns:
            The figure.

        Raises:
            SettingError: If nothing is recorded.

        Example:
            >>> learn.recorder.plot_lr(show_moms=True)
        """
        from onecycle.show.plots import plot_lr

        return plot_lr(self._checked_record(), show_moms)

    def plot_losses(self) -> Figure:
        """Plot the smoothed training loss and the validation loss over the batches.

        Returns:
            The figure.

        Raises:
            SettingError: If nothing is recorded.
        """
        from onecycle.show.plots import plot_losses

        return plot_losses(self._checked_record())

    def plot_metrics(self) -> Figure:
        """Plot each metric over the batches, one below the other.

        Returns:
            The figure.

        Raises:
            SettingError: If no metrics are recorded.
        """
        from onecycle.show.plots import plot_metrics

        return plot_metrics(self._checked_record())

    def _checked_record(self) -> Record:
        if not self.losses:
            raise SettingError("nothing is recorded yet; run fit, fit_one_cycle or lr_find first")
        return self.record
