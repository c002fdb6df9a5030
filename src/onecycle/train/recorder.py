"""The recorder fills a Record while a fit runs, and draws it."""

import math
from typing import Any

import torch
from torch import Tensor

from onecycle.core.record import LRCurve, Record, Smoother
from onecycle.errors import NonFiniteLossError, SettingError


class Recorder:
    """What happened in the last fit, or in the last run of the finder: numbers as lists, and their plots."""

    def __init__(self, record: Record | None = None, stop_at_nan: bool = True) -> None:
        self.record = record or Record()
        self._stop_at_nan = stop_at_nan
        self._smoother = Smoother()
        self._pending: Tensor | None = None  # the epoch's losses, on the device
        self._read = 0  # how many of them are in the record

    @property
    def lrs(self) -> list[float]:
        """The learning rate of each batch (of the last layer group)."""
        return self.record.lrs

    @property
    def moms(self) -> list[float | None]:
        """The momentum of each batch."""
        return self.record.moms

    @property
    def losses(self) -> list[float]:
        """The smoothed training loss after each batch."""
        return self.record.losses

    @property
    def val_losses(self) -> list[float | None]:
        """The validation loss of each epoch."""
        return self.record.val_losses

    @property
    def metrics(self) -> list[list[float | None]]:
        """The metrics of each epoch."""
        return self.record.metrics

    @property
    def stopped(self) -> str | None:
        """Why the fit ended before its last epoch, or None."""
        return self.record.stopped

    # --- filled by the loop -------------------------------------------------------------------------------------

    def prime_smoothing(self) -> None:
        """Smooth what comes as if this recorder had seen all that is in the record."""
        self._smoother.add(self.record.batch_losses)

    def start_epoch(self, batches: int, device: torch.device, done: int = 0) -> Tensor:
        """Room on the device for an epoch's losses (batches,), to be written in place; `done` are in the record."""
        self._pending, self._read = torch.empty(batches, device=device), done
        return self._pending

    def read(self, done: int, lrs: list[float], moms: list[float | None]) -> None:
        """Take the losses of the epoch's first `done` batches into the record; waits for the device.

        `lrs` and `moms` are the epoch's. Raises NonFiniteLossError at the first loss that is NaN or infinite.
        """
        assert self._pending is not None  # start_epoch came first
        losses: list[float] = self._pending[self._read : done].tolist()
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

    def end_epoch(self, epoch: int, batches: int, values: list[float] | None, seconds: float) -> None:
        """Add an epoch's row; `values` are the validation loss and the metrics, None where nothing was validated."""
        record = self.record
        found: list[float | None] = [*values] if values else [None] * (1 + len(record.metric_names))
        record.epochs.append(epoch)
        record.nb_batches.append(batches)
        record.val_losses.append(found[0])
        record.metrics.append(found[1:])
        record.seconds.append(seconds)

    # --- drawn; each returns its figure --------------------------------------------------------------------------

    def plot(self, skip_start: int = 10, skip_end: int = 5, suggestion: bool = False) -> Any:
        """The loss over the learning rate (log), without the first and last few; `suggestion` marks the valley."""
        from onecycle.show.plots import plot_lr_find

        curve = LRCurve(self._recorded().lrs, self.losses)
        return plot_lr_find(curve, skip_start, skip_end, suggestion)

    def plot_lr(self, show_moms: bool = False) -> Any:
        """The learning rate of each batch, with `show_moms` the momentum beside it."""
        from onecycle.show.plots import plot_lr

        return plot_lr(self._recorded(), show_moms)

    def plot_losses(self) -> Any:
        """The smoothed training loss and the validation loss over the batches."""
        from onecycle.show.plots import plot_losses

        return plot_losses(self._recorded())

    def plot_metrics(self) -> Any:
        """Each metric over the batches, one row a metric."""
        from onecycle.show.plots import plot_metrics

        return plot_metrics(self._recorded())

    def _recorded(self) -> Record:
        if not self.losses:
            raise SettingError("nothing is recorded yet; run fit, fit_one_cycle or lr_find first")
        return self.record
