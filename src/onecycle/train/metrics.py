"""Metrics of a batch, the mark of metrics that need the whole epoch, and metric names.

A metric is a function (outputs, targets) -> number; the outputs are the model's, without an activation. A plain
function is called with each batch, and its values are averaged, weighted by batch size. A function marked with
`epoch_metric` is called once with all rows (`epoch_metrics.py` has some). Metrics of torchmetrics are updated batch by
batch (`scores.py`).
"""

import reprlib
from collections.abc import Callable, Sequence
from functools import partial, wraps
from itertools import count
from types import FunctionType
from typing import Any, ParamSpec, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor

from onecycle.core.checks import unwrap_partial
from onecycle.errors import DataError, SettingError

Metric: TypeAlias = Callable[[Tensor, Tensor], "Tensor | float"]
_P = ParamSpec("_P")
_R = TypeVar("_R")
_UNMARKED: WeakKeyDictionary[Callable[..., Any], Callable[..., Any]] = WeakKeyDictionary()


def accuracy(preds: Tensor, targets: Tensor) -> Tensor:
    """Return the fraction of rows whose highest score is that of the target class.

    Args:
        preds: Scores of the classes, shape (n, ..., classes).
        targets: Class labels, shape (n, ...).

    Returns:
        The mean over the batch, a scalar from 0 to 1.

    Raises:
        SettingError: If the targets are not class labels.

    Example:
        >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        tensor(0.5000)
    """
    _check_labels(preds, targets, "accuracy")
    return (preds.argmax(dim=-1) == targets.view(preds.shape[:-1])).float().mean()


def error_rate(preds: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - accuracy.

    Args:
        preds: Scores of the classes, shape (n, ..., classes).
        targets: Class labels, shape (n, ...).

    Returns:
        The mean over the batch, a scalar from 0 to 1.

    Raises:
        SettingError: If the targets are not class labels.

    Example:
        >>> error_rate(torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1, 0, 1]))
        tensor(0.2500)
    """
    _check_labels(preds, targets, "error_rate")
    return 1 - accuracy(preds, targets)


def top_k_accuracy(preds: Tensor, targets: Tensor, k: int = 5) -> Tensor:
    """Return the fraction of rows whose target class is among the `k` highest scores.

    Args:
        preds: Scores of the classes, shape (n, ..., classes).
        targets: Class labels, shape (n, ...).
        k: How many scores count; with fewer classes, all of them.

    Returns:
        The mean over the batch, a scalar from 0 to 1.

    Raises:
        SettingError: If the targets are not class labels.

    Example:
        >>> learn = Learner(data, model, metrics=partial(top_k_accuracy, k=3))  # doctest: +SKIP
    """
    _check_labels(preds, targets, "top_k_accuracy")
    best = preds.topk(min(k, preds.shape[-1]), dim=-1).indices
    return (best == targets.unsqueeze(-1)).any(-1).float().mean()


def mean_squared_error(preds: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of (preds - targets)² over the batch. `mse` is the mean over the epoch, in float64.

    Args:
        preds: Predicted values, shape (n, ...); (n, 1) and (n,) fit each other.
        targets: Actual values, shape (n, ...).

    Returns:
        A scalar in the squared unit of the target.

    Raises:
        DataError: If there are not as many predictions as targets.

    Example:
        >>> mean_squared_error(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
        tensor(2.)
    """
    return _difference(preds, targets, "mean_squared_error").square().mean()


def mean_absolute_error(preds: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of |preds - targets| over the batch. `mae` is the mean over the epoch, in float64.

    Args:
        preds: Predicted values, shape (n, ...); (n, 1) and (n,) fit each other.
        targets: Actual values, shape (n, ...).

    Returns:
        A scalar in the unit of the target.

    Raises:
        DataError: If there are not as many predictions as targets.

    Example:
        >>> mean_absolute_error(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
        tensor(1.)
    """
    return _difference(preds, targets, "mean_absolute_error").abs().mean()


def root_mean_squared_error(preds: Tensor, targets: Tensor) -> Tensor:
    """Return the square root of the batch's mean squared error.

    The epoch's number is the mean over batches, as in the lesson, which is lower than the root over all rows: that is
    `rmse`.

    Args:
        preds: Predicted values, shape (n, ...); (n, 1) and (n,) fit each other.
        targets: Actual values, shape (n, ...).

    Returns:
        A scalar in the unit of the target.

    Raises:
        DataError: If there are not as many predictions as targets.

    Example:
        >>> root_mean_squared_error(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
        tensor(1.4142)
    """
    return _difference(preds, targets, "root_mean_squared_error").square().mean().sqrt()


def _difference(preds: Tensor, targets: Tensor, name: str) -> Tensor:
    check_same_size(preds, targets, name)
    return preds.view_as(targets) - targets


def check_same_size(preds: Tensor, targets: Tensor, name: str) -> None:
    """Raise DataError if there are not as many predictions as targets, as a regression has."""
    if preds.numel() != targets.numel():
        raise DataError(
            f"{name}: the model returns {tuple(preds.shape)} for targets {tuple(targets.shape)}; expected one output "
            f'per target. {name} is for regression (task="regression"); for classes use accuracy, f1_score or roc_auc'
        )


def _check_labels(preds: Tensor, targets: Tensor, name: str) -> None:
    """Raise SettingError if `targets` are not labels of the classes that `preds` has scores for."""
    is_regression = targets.is_floating_point() and preds.numel() == targets.numel()
    if is_regression or preds.shape[:-1].numel() != targets.numel():
        dtype = str(targets.dtype).removeprefix("torch.")
        raise SettingError(
            f"{name}: the model returns {tuple(preds.shape)} for targets {tuple(targets.shape)} of {dtype}; "
            f"{name} is for classes, with outputs (n, classes) for labels (n,). For regression use rmse, mae or "
            "r2_score, for a single output or several labels of 0 and 1 f1_score, roc_auc or average_precision"
        )


def epoch_metric(metric: Callable[_P, _R]) -> Callable[_P, _R]:
    """Mark a metric to be called once per epoch with all its rows, instead of once per batch.

    Its value then needs no averaging, so that ranks and ratios are exact. All outputs of the validation set stay in
    memory until the end of the epoch.

    Args:
        metric: Function (outputs, targets) -> number. It is not changed.

    Returns:
        A function with the same arguments, name and docstring.

    Example:
        >>> @epoch_metric
        ... def median_error(preds: Tensor, targets: Tensor) -> Tensor:
        ...     return (preds.flatten() - targets).abs().median()
        >>> learn = Learner(data, model, metrics=median_error)  # doctest: +SKIP
    """

    @wraps(metric)
    def marked(*args: _P.args, **options: _P.kwargs) -> _R:
        return metric(*args, **options)

    marked.__name__ = metric_name(metric)  # a partial has none
    marked.is_epoch_metric = True  # pyright: ignore[reportAttributeAccessIssue] -- a function takes any
    _UNMARKED[marked] = metric
    return marked


def is_epoch_metric(metric: Metric) -> bool:
    """Return whether a metric, or the function of a partial, is marked with `epoch_metric`."""
    return getattr(unwrap_partial(metric), "is_epoch_metric", False)


def inner_metric(metric: Any) -> Any:
    """Return the function of a partial, or the one that `epoch_metric` marked; None if the metric is neither."""
    if isinstance(metric, partial):
        return metric.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- of whatever
    return _UNMARKED.get(metric) if isinstance(metric, FunctionType) else None


def metric_name(metric: Callable[..., Any]) -> str:
    """Return the name of a metric: its own, that of a partial's function, or that of an object's class."""
    inner = unwrap_partial(metric)
    return str(getattr(metric, "__name__", None) or getattr(inner, "__name__", None) or type(inner).__name__)


def metric_names(metrics: Sequence[Callable[..., Any]]) -> list[str]:
    """Return the names of the metrics' columns, all different.

    Partials of one function are told apart by their arguments, as in top_k_accuracy(k=3), others of one name, and those
    with the name of another column, by a number: score, score_2.
    """
    names = [metric_name(metric) for metric in metrics]
    names = [
        name + (_arguments(metric) if names.count(name) > 1 else "")
        for name, metric in zip(names, metrics, strict=True)
    ]
    taken = {"train_loss", "valid_loss", "epoch", "time"}
    for i, name in enumerate(names):
        numbered = (f"{name}_{number}" for number in count(2))
        names[i] = name if name not in taken else next(other for other in numbered if other not in {*taken, *names})
        taken.add(names[i])
    return names


def _arguments(metric: Any) -> str:
    """Return the arguments of a partial, also of a marked one, such as "(k=3)"; "" for any other metric."""
    inner = metric if isinstance(metric, partial) else getattr(metric, "__wrapped__", None)
    if not isinstance(inner, partial):
        return ""
    values = [
        *map(reprlib.repr, inner.args),
        *(f"{key}={reprlib.repr(value)}" for key, value in inner.keywords.items()),
    ]
    return f"({', '.join(values)})" if values else ""
