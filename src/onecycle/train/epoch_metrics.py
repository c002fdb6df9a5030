"""Metrics over the whole epoch: exact, computed in float64 from all rows at once instead of averaged over batches.

The classification metrics take logits in one of three forms:

- two classes: outputs (n,), (n, 1) or (n, 2), targets (n,) of 0 and 1; the value is that of class 1
- more classes: outputs (n, ..., classes), targets (n, ...); the value is the mean over classes
- several labels: outputs (n, labels), targets (n, labels) of 0 and 1; the value is the mean over labels

A class whose value is undefined (0/0) is left out of the mean. The value is NaN if no class remains, or if an output is
NaN.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from onecycle.errors import DataError
from onecycle.train.metrics import check_same_size, epoch_metric


@epoch_metric
def f1_score(preds: Tensor, targets: Tensor) -> float:
    """Return the F1 score: `2 TP / (2 TP + FP + FN)`, the harmonic mean of precision and recall.

    A class is predicted if its logit is the highest, a label if its logit is above 0. The score is undefined for a
    class that is neither present nor predicted (scikit-learn returns 0 for two classes and for labels).

    Args:
        preds: Logits: (n,), (n, 1) or (n, 2) for two classes, (n, ..., classes), or (n, labels).
        targets: Class labels (n, ...), or 0 and 1 for each label (n, labels).

    Returns:
        The score from 0 to 1: of class 1 for two classes, else the mean over classes or labels; NaN if undefined.

    Raises:
        DataError: If the shapes do not fit, or targets are not labels.

    Example:
        >>> f1_score(torch.tensor([2.0, -1.0, 3.0]), torch.tensor([1, 1, 1]))
        0.8
    """
    scores, labels = _scores(preds, targets, "f1_score")
    if scores.isnan().any():
        return math.nan
    if labels.ndim == 2:
        hits, predicted, actual = ((scores > 0) & labels.bool()).sum(0), (scores > 0).sum(0), labels.sum(0)
    else:
        best, classes = scores.argmax(1), scores.shape[1]
        groups = best[best == labels], best, labels
        hits, predicted, actual = (torch.bincount(group, minlength=classes) for group in groups)
    return (2 * hits.double() / (predicted + actual)).nanmean().item()


@epoch_metric
def roc_auc(preds: Tensor, targets: Tensor) -> float:
    """Return the area under the ROC curve.

    That is the probability that a row of the class scores higher than a row of another class; ties count half. With
    more than two classes each is compared with the rest by its softmax probability. For two classes and for labels
    only the order of the scores matters. The area is undefined for a class that no row or every row has.

    Args:
        preds: Logits: (n,), (n, 1) or (n, 2) for two classes, (n, ..., classes), or (n, labels).
        targets: Class labels (n, ...), or 0 and 1 for each label (n, labels).

    Returns:
        The area from 0 to 1: of class 1 for two classes, else the mean over classes or labels; NaN if undefined.

    Raises:
        DataError: If the shapes do not fit, or targets are not labels.

    Example:
        >>> roc_auc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        0.75
    """
    return _mean_over_classes(preds, targets, _area, "roc_auc")


@epoch_metric
def average_precision(preds: Tensor, targets: Tensor) -> float:
    """Return the average precision: the mean of the precision at each row of the class, from the highest score down.

    The curve is not interpolated. With more than two classes each is compared with the rest by its softmax
    probability; for two classes and for labels only the order of the scores matters. Undefined for a class that no row
    has (scikit-learn returns 0).

    Args:
        preds: Logits: (n,), (n, 1) or (n, 2) for two classes, (n, ..., classes), or (n, labels).
        targets: Class labels (n, ...), or 0 and 1 for each label (n, labels).

    Returns:
        The precision from 0 to 1: of class 1 for two classes, else the mean over classes or labels; NaN if undefined.

    Raises:
        DataError: If the shapes do not fit, or targets are not labels.

    Example:
        >>> average_precision(torch.tensor([0.1, 0.4, 0.3, 0.8]), torch.tensor([0, 0, 0, 1]))
        1.0
    """
    return _mean_over_classes(preds, targets, _precision, "average_precision")


@epoch_metric
def r2_score(preds: Tensor, targets: Tensor) -> float:
    """Return the coefficient of determination: `1 - sum((y - p)²) / sum((y - mean(y))²)`, mean over columns.

    Args:
        preds: Predicted values p, shape (n,), (n, 1) or (n, columns).
        targets: Actual values y, shape (n,), (n, 1) or (n, columns).

    Returns:
        At most 1. A column of equal targets counts 1 if all its predictions are exact, else 0; NaN for a single row.

    Raises:
        DataError: If there are not as many predictions as targets.

    Example:
        >>> r2_score(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 3.0]))
        0.5
    """
    predicted, actual = _as_columns(preds, targets, "r2_score")
    if len(actual) < 2:
        return math.nan
    error = (predicted - actual).square().sum(0)
    spread = (actual - actual.mean(0)).square().sum(0)
    is_constant = actual.amax(0) == actual.amin(0)
    return torch.where(is_constant, (error == 0).double(), 1 - error / spread).mean().item()


@epoch_metric
def mse(preds: Tensor, targets: Tensor) -> float:
    """Return the mean squared error over all rows and columns.

    Args:
        preds: Predicted values, shape (n,), (n, 1) or (n, columns).
        targets: Actual values, shape (n,), (n, 1) or (n, columns).

    Returns:
        The error in the squared unit of the target.

    Raises:
        DataError: If there are not as many predictions as targets.

    Example:
        >>> mse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
        2.0
    """
    predicted, actual = _as_columns(preds, targets, "mse")
    return (predicted - actual).square().mean().item()


@epoch_metric
def rmse(preds: Tensor, targets: Tensor) -> float:
    """Return the root of the mean squared error over all rows and columns.

    Args:
        preds: Predicted values, shape (n,), (n, 1) or (n, columns).
        targets: Actual values, shape (n,), (n, 1) or (n, columns).

    Returns:
        The error in the unit of the target.

    Raises:
        DataError: If there are not as many predictions as targets.

    Example:
        >>> rmse(torch.tensor([1.0, 5.0, 3.0, 4.0]), torch.tensor([1.0, 1.0, 3.0, 4.0]))
        2.0
    """
    predicted, actual = _as_columns(preds, targets, "rmse")
    return (predicted - actual).square().mean().sqrt().item()


@epoch_metric
def mae(preds: Tensor, targets: Tensor) -> float:
    """Return the mean absolute error over all rows and columns.

    Args:
        preds: Predicted values, shape (n,), (n, 1) or (n, columns).
        targets: Actual values, shape (n,), (n, 1) or (n, columns).

    Returns:
        The error in the unit of the target.

    Raises:
        DataError: If there are not as many predictions as targets.

    Example:
        >>> mae(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
        1.0
    """
    predicted, actual = _as_columns(preds, targets, "mae")
    return (predicted - actual).abs().mean().item()


def _mean_over_classes(preds: Tensor, targets: Tensor, value: Callable[[Tensor, Tensor], float], name: str) -> float:
    """Return the mean over classes of `value(hits, rows)`, called with the counts of `_thresholds`."""
    scores, labels = _scores(preds, targets, name)
    if labels.ndim == 1:
        scores = scores.softmax(1)
    if scores.isnan().any():
        return math.nan
    values: list[float] = []
    for column, column_scores in enumerate(scores.T):
        has_class = labels[:, column] if labels.ndim == 2 else labels == column
        values.append(value(*_thresholds(column_scores, has_class)))
    return torch.tensor(values, dtype=torch.float64).nanmean().item()


def _thresholds(scores: Tensor, has_class: Tensor) -> tuple[Tensor, Tensor]:
    """Count, for each distinct score from the highest down, the rows of the class, and all rows, that reach it."""
    ranked, order = scores.sort(descending=True)
    is_last = torch.cat([ranked[1:] != ranked[:-1], torch.ones_like(ranked[:1], dtype=torch.bool)])
    last = is_last.nonzero().squeeze(1)
    return has_class[order].cumsum(0)[last], last + 1


def _area(hits: Tensor, rows: Tensor) -> float:
    misses = rows - hits
    positives, negatives = int(hits[-1]), int(misses[-1])
    steps = misses.diff(prepend=misses.new_zeros(1))
    doubled = int((steps * (2 * hits - hits.diff(prepend=hits.new_zeros(1)))).sum())  # integers: no rounding
    return doubled / (2 * positives * negatives) if positives and negatives else math.nan


def _precision(hits: Tensor, rows: Tensor) -> float:
    gained = hits.diff(prepend=hits.new_zeros(1))
    return (gained * (hits.double() / rows)).sum().item() / int(hits[-1]) if hits[-1] else math.nan


def _scores(preds: Tensor, targets: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Return float64 scores and int64 labels: (n, k) and (n,) for more than two classes, else both (n, labels).

    Two classes become one label, whose score is the difference of their logits. Raises DataError if the shapes do not
    fit, or targets are not labels.
    """
    preds, targets = _as_float64(preds), targets.to(_float64_device(targets))
    if preds.numel() == targets.numel():
        scores, labels, highest = preds.reshape(len(preds), -1), targets.reshape(len(preds), -1), 1
    elif preds.ndim > 1 and preds.numel() == targets.numel() * preds.shape[-1]:
        scores, labels = preds.flatten(0, -2), targets.flatten()
        highest = scores.shape[1] - 1
    else:
        raise DataError(
            f"{name}: the model returns {tuple(preds.shape)} for targets {tuple(targets.shape)}; "
            "expected (n, classes) for (n,), or the same shape"
        )
    invalid = labels[(labels < 0) | (labels > highest) | (labels != labels.long())]
    if len(invalid):
        raise DataError(f"{name}: targets contain {invalid[0].item():g}; expected whole numbers from 0 to {highest}")
    labels = labels.long()
    if labels.ndim == 1 and highest == 1:
        return (scores[:, 1] - scores[:, 0])[:, None], labels[:, None]
    return scores, labels


def _as_columns(preds: Tensor, targets: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Return both as float64 (n, columns). Raises DataError if there are not as many predictions as targets."""
    check_same_size(preds, targets, name)
    rows = len(targets)
    return _as_float64(preds).reshape(rows, -1), _as_float64(targets).reshape(rows, -1)


def _as_float64(values: Tensor) -> Tensor:
    return values.to(_float64_device(values), torch.float64)


def _float64_device(values: Tensor) -> torch.device:
    """Return the tensor's device, but the CPU for MPS, which has no float64."""
    return torch.device("cpu") if values.device.type == "mps" else values.device
