"""Metrics: functions of (predictions, targets) that give a number. Predictions are the model's outputs as they are.

A plain function is called with each batch, and its values are averaged, weighed by the batches' sizes. A function that
is marked `over_the_epoch` is called once, with all rows (`epoch_metrics.py` has some). Metrics of torchmetrics are fed
batch by batch (`tally.py`).
"""

from collections.abc import Callable, Iterator
from functools import wraps
from inspect import getclosurevars, unwrap
from types import BuiltinFunctionType, FunctionType
from typing import Any, ParamSpec, TypeAlias, TypeVar

import torch
from torch import Tensor

from onecycle.core.checks import unwrap_partial
from onecycle.errors import DataError, SettingError

Metric: TypeAlias = Callable[[Tensor, Tensor], "Tensor | float"]
_P = ParamSpec("_P")
_R = TypeVar("_R")


def accuracy(preds: Tensor, targets: Tensor) -> Tensor:
    """The share of rows whose highest score is at the target: preds (n, ..., classes), targets (n, ...) integers.

    The mean over a batch's rows. Raises SettingError where the targets are no labels of classes.
    """
    _check_labels(preds, targets, "accuracy")
    return (preds.argmax(dim=-1) == targets.view(preds.shape[:-1])).float().mean()


def error_rate(preds: Tensor, targets: Tensor) -> Tensor:
    """1 - accuracy: preds (n, ..., classes), targets (n, ...) integers.

    The mean over a batch's rows. Raises SettingError where the targets are no labels of classes.
    """
    _check_labels(preds, targets, "error_rate")
    return 1 - accuracy(preds, targets)


def top_k_accuracy(preds: Tensor, targets: Tensor, k: int = 5) -> Tensor:
    """The share of rows whose target is among the `k` highest scores: preds (n, classes), targets (n,) integers.

    The mean over a batch's rows. Raises SettingError where the targets are no labels of classes.
    """
    _check_labels(preds, targets, "top_k_accuracy")
    best = preds.topk(min(k, preds.shape[-1]), dim=-1).indices
    return (best == targets.unsqueeze(-1)).any(-1).float().mean()


def mean_squared_error(preds: Tensor, targets: Tensor) -> Tensor:
    """The mean of the squared differences, in the target's unit squared: preds of as many numbers as targets (n, ...).

    The mean over a batch's elements. `mse` is the same over the whole epoch, in float64.
    """
    return _difference(preds, targets, "mean_squared_error").square().mean()


def mean_absolute_error(preds: Tensor, targets: Tensor) -> Tensor:
    """The mean of the absolute differences, in the target's unit: preds of as many numbers as targets (n, ...).

    The mean over a batch's elements. `mae` is the same over the whole epoch, in float64.
    """
    return _difference(preds, targets, "mean_absolute_error").abs().mean()


def root_mean_squared_error(preds: Tensor, targets: Tensor) -> Tensor:
    """The square root of a batch's mean squared error: preds of as many numbers as targets (n, ...).

    Averaged over batches, as the lesson's software does, which is less than the epoch's: that is `rmse`.
    """
    return _difference(preds, targets, "root_mean_squared_error").square().mean().sqrt()


def _difference(preds: Tensor, targets: Tensor, name: str) -> Tensor:
    check_same_size(preds, targets, name)
    return preds.view_as(targets) - targets


def check_same_size(preds: Tensor, targets: Tensor, name: str) -> None:
    """Raises DataError where predictions and targets do not have as many numbers, as in a regression."""
    if preds.numel() != targets.numel():
        raise DataError(
            f"{name}: the model gives {tuple(preds.shape)} for targets {tuple(targets.shape)}; expected as many "
            f'numbers. {name} is for regression (task="regression"); for classes use accuracy, f1_score or roc_auc'
        )


def _check_labels(preds: Tensor, targets: Tensor, name: str) -> None:
    """Raises SettingError where `targets` are no labels of the classes that `preds` has scores for."""
    values = targets.is_floating_point() and preds.numel() == targets.numel()
    if values or preds.shape[:-1].numel() != targets.numel():
        kind = str(targets.dtype).removeprefix("torch.")
        raise SettingError(
            f"{name}: the model gives {tuple(preds.shape)} for targets {tuple(targets.shape)} of {kind}; "
            f"{name} is for classes, with outputs (n, classes) for labels (n,). For regression use rmse, mae or "
            "r2_score, for a single output or several labels of 0 and 1 f1_score, roc_auc or average_precision"
        )


def epoch_metric(metric: Callable[_P, _R]) -> Callable[_P, _R]:
    """Mark a function (preds, targets) to be called once an epoch, with all its rows, and not with each batch.

    Its results need no averaging then, so that ranks and ratios are exact. All predictions of an epoch are kept for it.
    """

    @wraps(metric)
    def whole(*args: _P.args, **options: _P.kwargs) -> _R:
        return metric(*args, **options)

    whole.__name__ = metric_name(metric)
    whole.over_the_epoch = True  # pyright: ignore[reportAttributeAccessIssue] -- a function takes any
    return whole


def is_epoch_metric(metric: Metric) -> bool:
    """Whether a metric, or what it is a partial of, is marked `over_the_epoch`."""
    return getattr(unwrap_partial(metric), "over_the_epoch", False)


def is_stateless(metric: Metric) -> bool:
    """Whether a metric is a function, or a partial of one, that keeps no state between calls as far as can be seen.

    Objects may, as those of torchmetrics do, and so may a function that encloses a list or an iterator.
    """
    inner = unwrap(unwrap_partial(metric))
    if not isinstance(inner, FunctionType):
        return isinstance(inner, BuiltinFunctionType)
    return not any(
        isinstance(value, list | dict | set | Iterator) for value in getclosurevars(inner).nonlocals.values()
    )


def metric_name(metric: Callable[..., Any]) -> str:
    """The name of a metric's column: the function's, also under a partial; of a torchmetrics metric, its class's."""
    inner = unwrap_partial(metric)
    return getattr(inner, "__name__", type(inner).__name__)


def weighted_mean(values: Tensor, sizes: list[int]) -> list[float]:
    """Column means of `values` (batches, columns), each batch weighed by its size; one synchronisation."""
    weights = torch.tensor(sizes, dtype=torch.float64)
    means: list[float] = ((values.cpu().double() * weights[:, None]).sum(0) / weights.sum()).tolist()
    return means
