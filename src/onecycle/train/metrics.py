"""Metrics: functions of (predictions, targets) of one batch that give the batch's mean as a scalar tensor.

`evaluate` weighs each batch's value by its size. Any function of that form is a metric; its `__name__` is the name of
its column.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

Metric: TypeAlias = Callable[[Tensor, Tensor], "Tensor | float"]


def accuracy(preds: Tensor, targets: Tensor) -> Tensor:
    """The share of rows whose highest score is at the target: preds (n, ..., classes), targets (n, ...) integers."""
    return (preds.argmax(dim=-1) == targets.view(preds.shape[:-1])).float().mean()


def error_rate(preds: Tensor, targets: Tensor) -> Tensor:
    """1 - accuracy."""
    return 1 - accuracy(preds, targets)


def top_k_accuracy(preds: Tensor, targets: Tensor, k: int = 5) -> Tensor:
    """The share of rows whose target is among the `k` highest scores: preds (n, classes), targets (n,) integers."""
    best = preds.topk(min(k, preds.shape[-1]), dim=-1).indices
    return (best == targets.unsqueeze(-1)).any(-1).float().mean()


def mean_squared_error(preds: Tensor, targets: Tensor) -> Tensor:
    """The mean of the squared differences, over all elements; in the target's unit squared."""
    return (preds.view_as(targets) - targets).square().mean()


def mean_absolute_error(preds: Tensor, targets: Tensor) -> Tensor:
    """The mean of the absolute differences, over all elements; in the target's unit."""
    return (preds.view_as(targets) - targets).abs().mean()


def root_mean_squared_error(preds: Tensor, targets: Tensor) -> Tensor:
    """The square root of a batch's mean squared error; averaged over batches, as the lesson's software does."""
    return mean_squared_error(preds, targets).sqrt()


def metric_name(metric: Metric) -> str:
    """The name of a metric's column."""
    inner: Any = metric.func if isinstance(metric, partial) else metric
    return getattr(inner, "__name__", type(inner).__name__)


def weighted_mean(values: Tensor, sizes: list[int]) -> list[float]:
    """Column means of `values` (batches, columns), each batch weighed by its size; one synchronisation."""
    weights = torch.tensor(sizes, dtype=torch.float64)
    means: list[float] = ((values.cpu().double() * weights[:, None]).sum(0) / weights.sum()).tolist()
    return means
