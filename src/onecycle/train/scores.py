"""Gathers the loss and the metrics of an epoch."""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from onecycle.errors import DataError, SettingError
from onecycle.train.metrics import Metric, is_epoch_metric, metric_name, weighted_mean

_ROWS = 64  # that there is room for at first


class EpochScores:
    """The loss and the metrics of one epoch, taken in batch by batch; waits for the device only in `result`.

    `restore` turns predictions and targets into what the metrics are to see, for example values in the target's own
    units; the loss stays as it is. A metric with the methods `update`, `compute` and `reset` (those of torchmetrics) is
    reset first and put on the device of the predictions.
    """

    def __init__(self, metrics: Sequence[Metric], restore: Callable[[Tensor], Tensor] | None = None) -> None:
        self._metrics, self._restore = list(metrics), restore if metrics else None
        self._running: list[Any] = [metric for metric in metrics if _is_running(metric)]
        others = [metric for metric in metrics if not _is_running(metric)]
        self._batchwise = [metric for metric in others if not is_epoch_metric(metric)]
        self._over_epoch = [metric for metric in others if is_epoch_metric(metric)]
        self._scores = torch.empty(0)  # a row for each batch: the loss and the metrics that are averaged
        self._sizes: list[int] = []
        self._kept: list[tuple[Any, Any]] = []
        for metric in self._running:
            metric.reset()

    def add(self, loss: Tensor, preds: Any, targets: Any, rows: int) -> None:
        """Take in a batch: its mean loss, the model's outputs, the targets, and how many rows it has."""
        if self._restore is not None:
            preds, targets = _mapped(self._restore, preds), _mapped(self._restore, targets)
        self._keep_row(batch_scores(loss, self._batchwise, preds, targets).detach())
        self._sizes.append(rows)
        for metric in self._running:
            if len(self._sizes) == 1 and isinstance(preds, Tensor) and hasattr(metric, "to"):
                metric.to(preds.device)
            _update(metric, preds, targets)
        if self._over_epoch:
            self._kept.append((_mapped(Tensor.detach, preds), _mapped(Tensor.detach, targets)))

    def add_scores(self, scores: Tensor, rows: int) -> None:
        """Take in several batches of `rows` rows each, by what `scores_row` gives for them: (batches, 1 + metrics)."""
        done = self._scores[: len(self._sizes)]
        self._scores = torch.cat([done, scores]) if len(done) else scores
        self._sizes += [rows] * len(scores)

    def _keep_row(self, row: Tensor) -> None:
        """Copied into one block: small tensors that stay would part the memory that the next batches take."""
        done = len(self._sizes)
        if done == len(self._scores):
            more = row.new_empty(max(done, _ROWS), len(row))
            self._scores = torch.cat([self._scores, more]) if done else more
        self._scores[done] = row

    def result(self) -> list[float]:
        """The mean loss and each metric's value. Raises DataError where there were no batches."""
        if not self._sizes:
            raise DataError("the validation set has no batches; give it rows, or leave it out")
        loss, *means = weighted_mean(self._scores[: len(self._sizes)], self._sizes)
        whole = [_joined(parts) for parts in zip(*self._kept, strict=True)]
        found = {
            **dict(zip(map(id, self._batchwise), means, strict=True)),
            **{id(metric): _number(metric, metric(*whole)) for metric in self._over_epoch},
            **{id(metric): _number(metric, metric.compute()) for metric in self._running},
        }
        return [loss, *(found[id(metric)] for metric in self._metrics)]


def is_batchwise(metrics: Sequence[Metric]) -> bool:
    """Whether all of the metrics are functions of one batch, so that `scores_row` is all there is to an epoch."""
    return not any(_is_running(metric) or is_epoch_metric(metric) for metric in metrics)


def batch_scores(loss: Tensor, metrics: Sequence[Metric], preds: Any, targets: Any) -> Tensor:
    """The loss and the metrics of one batch as a float32 tensor (1 + metrics,) on its device, without waiting."""
    row = [loss, *(_on(loss.device, metric, metric(preds, targets)) for metric in metrics)]
    return torch.stack([value.float().reshape(()) for value in row])


def _is_running(metric: Any) -> bool:
    """Whether a metric gathers batches by itself, as those of torchmetrics do."""
    return all(callable(getattr(metric, method, None)) for method in ("update", "compute", "reset"))


def _update(metric: Any, preds: Any, targets: Any) -> None:
    """Feed a batch to a metric of torchmetrics, which is particular about shapes, and about whole numbers as labels."""
    if isinstance(preds, Tensor) and isinstance(targets, Tensor):
        if preds.numel() == targets.numel():
            preds = preds.reshape(targets.shape)  # (n, 1) and (n,) are the same to the losses
        modules = [base.__module__ for base in type(metric).__mro__]
        if targets.is_floating_point() and any(name.startswith("torchmetrics.classification") for name in modules):
            targets = targets.long()  # the 0 and 1 that binary cross-entropy takes
    metric.update(preds, targets)


def _on(device: torch.device, metric: Metric, value: Any) -> Tensor:
    """The value of a metric as a tensor on `device`."""
    if not isinstance(value, Tensor) and isinstance(value, Real):
        return torch.full((), float(value), dtype=torch.float32, device=device)  # a copy would wait for the device
    return _single(metric, value).to(device)


def _number(metric: Metric, value: Any) -> float:
    return float(value) if isinstance(value, Real) else float(_single(metric, value).item())


def _single(metric: Metric, value: Any) -> Tensor:
    """The value as a tensor of one element. Raises SettingError, naming the metric, where it is not one number."""
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        found = "None" if value is None else f"a {type(value).__name__}"
        raise SettingError(
            f'metric "{metric_name(metric)}" gives {found}; expected one number: several take several metrics'
        ) from None
    if tensor.numel() != 1:
        raise SettingError(
            f'metric "{metric_name(metric)}" gives {tensor.numel()} numbers (shape {tuple(tensor.shape)}); '
            "expected one, for example their mean"
        )
    return tensor


def _mapped(function: Callable[[Tensor], Tensor], part: Any) -> Any:
    """`function` of a tensor, or of each in a list or tuple of them; anything else as it is."""
    if isinstance(part, list | tuple):
        return [_mapped(function, item) for item in part]
    return function(part) if isinstance(part, Tensor) else part


def _joined(parts: Sequence[Any]) -> Any:
    """The batches' tensors, or lists of them, as one. Raises DataError for what cannot be joined."""
    if isinstance(parts[0], list):
        return [_joined(columns) for columns in zip(*parts, strict=True)]
    try:
        return torch.cat(list(parts))
    except (RuntimeError, TypeError) as error:
        raise DataError(
            f"metrics over the epoch need outputs and targets that can be joined over batches ({error}); expected "
            "tensors, or lists of them, of the same shape for each row"
        ) from error
