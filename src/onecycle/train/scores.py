"""Scores: the loss and the metrics of a data set, gathered batch by batch."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from onecycle.core.nested import concatenate, map_tensors
from onecycle.errors import DataError, SettingError
from onecycle.train.metrics import Metric, is_epoch_metric, metric_name

_INITIAL_ROWS = 64  # of the table of batch scores, which doubles when it is full


class EpochScores:
    """The loss and the metrics of one pass over a data set. Waits for the device only in `result`.

    Args:
        metrics: Plain functions, functions marked with `epoch_metric`, and objects with the methods `update`, `compute`
            and `reset` (those of torchmetrics), which are reset here and moved to the device of the outputs.
        inverse_transform: Maps outputs and targets to the units that metrics see; the loss stays as it is.
    """

    def __init__(self, metrics: Sequence[Metric], inverse_transform: Callable[[Tensor], Tensor] | None = None) -> None:
        self._metrics, self._inverse_transform = list(metrics), inverse_transform if metrics else None
        self._updated: list[Any] = [metric for metric in metrics if _has_update(metric)]
        self._batchwise = [metric for metric in metrics if is_batchwise([metric])]
        self._needs_epoch = any(is_epoch_metric(metric) and not _has_update(metric) for metric in metrics)
        self._scores = torch.empty(0)  # a row per batch: the loss and the batchwise metrics
        self._sizes: list[int] = []
        self._batches: list[tuple[Any, Any]] = []  # outputs and targets, for metrics over the epoch
        for metric in self._updated:
            metric.reset()

    def add(self, loss: Tensor, preds: Any, targets: Any, rows: int) -> None:
        """Add a batch: its mean loss, the model's outputs, the targets, and its number of rows."""
        if self._inverse_transform is not None:
            preds, targets = (map_tensors(self._inverse_transform, value) for value in (preds, targets))
        self._add_row(batch_scores(loss, self._batchwise, preds, targets).detach())
        self._sizes.append(rows)
        for metric in self._updated:
            if len(self._sizes) == 1 and isinstance(preds, Tensor) and hasattr(metric, "to"):
                metric.to(preds.device)
            _update(metric, preds, targets)
        if self._needs_epoch:
            self._batches.append((map_tensors(Tensor.detach, preds), map_tensors(Tensor.detach, targets)))

    def add_scores(self, scores: Tensor, rows: int) -> None:
        """Add several batches of `rows` rows each, by their `batch_scores`, shape (batches, 1 + metrics)."""
        done = self._scores[: len(self._sizes)]
        self._scores = torch.cat([done, scores]) if len(done) else scores
        self._sizes += [rows] * len(scores)

    def _add_row(self, row: Tensor) -> None:
        """Copy the row into one table: small tensors that stay alive would fragment the memory of the next batches."""
        done = len(self._sizes)
        if done == len(self._scores):
            space = row.new_empty(max(done, _INITIAL_ROWS), len(row))
            self._scores = torch.cat([self._scores, space]) if done else space
        self._scores[done] = row

    def result(self) -> list[float]:
        """Return the mean loss and the value of each metric. Raises DataError if there were no batches."""
        if not self._sizes:
            raise DataError("the validation set has no batches; give it rows, or leave it out")
        means = iter(weighted_mean(self._scores[: len(self._sizes)], self._sizes))
        epoch = [_concatenate(column) for column in zip(*self._batches, strict=True)]
        results = [next(means)]
        for metric in self._metrics:
            if _has_update(metric):
                results.append(_as_float(metric, metric.compute()))  # pyright: ignore[reportFunctionMemberAccess] -- it has
            elif is_epoch_metric(metric):
                results.append(_as_float(metric, metric(*epoch)))
            else:
                results.append(next(means))
        return results


def weighted_mean(values: Tensor, sizes: list[int]) -> list[float]:
    """Return the column means of `values`, shape (batches, columns), weighted by batch size. Waits once."""
    weights = torch.tensor(sizes, dtype=torch.float64)
    means: list[float] = ((values.cpu().double() * weights[:, None]).sum(0) / weights.sum()).tolist()
    return means


def is_batchwise(metrics: Sequence[Metric]) -> bool:
    """Return whether all metrics are functions of one batch, so that an epoch needs only their `batch_scores`."""
    return not any(_has_update(metric) or is_epoch_metric(metric) for metric in metrics)


def batch_scores(loss: Tensor, metrics: Sequence[Metric], preds: Any, targets: Any) -> Tensor:
    """Return loss and metrics of one batch as a tensor, shape (1 + metrics,), on the loss's device.

    It is float32, but float64 if the predictions are, since they may be in units that float32 does not hold. Does not
    wait for the device.
    """
    row = [loss, *(_on_device(loss.device, metric, metric(preds, targets)) for metric in metrics)]
    dtype = torch.float64 if isinstance(preds, Tensor) and preds.dtype is torch.float64 else torch.float32
    return torch.stack([value.to(dtype).reshape(()) for value in row])


def _has_update(metric: Any) -> bool:
    """Return whether a metric gathers batches itself, as those of torchmetrics do."""
    return all(callable(getattr(metric, method, None)) for method in ("update", "compute", "reset"))


def _update(metric: Any, preds: Any, targets: Any) -> None:
    """Update a metric of torchmetrics, which needs equal shapes, and integers as labels."""
    if isinstance(preds, Tensor) and isinstance(targets, Tensor):
        if preds.numel() == targets.numel():
            preds = preds.reshape(targets.shape)  # (n, 1) and (n,) are the same to the losses
        modules = [base.__module__ for base in type(metric).__mro__]
        if targets.is_floating_point() and any(name.startswith("torchmetrics.classification") for name in modules):
            targets = targets.long()  # the 0 and 1 that binary cross-entropy takes
    metric.update(preds, targets)


def _on_device(device: torch.device, metric: Metric, value: Any) -> Tensor:
    if not isinstance(value, Tensor) and isinstance(value, Real):
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return torch.full((), float(value), dtype=dtype, device=device)  # a copy would wait for the device
    return _as_scalar(metric, value).to(device)


def _as_float(metric: Metric, value: Any) -> float:
    return float(value) if isinstance(value, Real) else float(_as_scalar(metric, value).item())


def _as_scalar(metric: Metric, value: Any) -> Tensor:
    """Return the value of a metric as a tensor of one element. Raises SettingError if it is not one number."""
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        kind = "None" if value is None else f"a {type(value).__name__}"
        raise SettingError(
            f'metric "{metric_name(metric)}" returns {kind}; expected one number: pass a metric for each number'
        ) from None
    if tensor.numel() != 1:
        raise SettingError(
            f'metric "{metric_name(metric)}" returns {tensor.numel()} numbers (shape {tuple(tensor.shape)}); '
            "expected one, for example their mean"
        )
    return tensor


def _concatenate(batches: Sequence[Any]) -> Any:
    """Concatenate the tensors of all batches, also nested ones. Raises DataError if that is not possible."""
    try:
        return concatenate(batches, "a value")
    except DataError as error:
        raise DataError(
            f"metrics over the epoch need outputs and targets that can be concatenated over batches ({error}); "
            "expected tensors, or lists and dicts of them, of the same shape for each row"
        ) from error
