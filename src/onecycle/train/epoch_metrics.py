"""Metrics over the whole epoch, exact: computed in float64 from all predictions at once, not averaged over batches.

Classification takes logits: (n, classes) for targets (n,); (n,), (n, 1) or (n, 2) for two classes; (n, labels) for
targets (n, labels) of 0 and 1. A class whose value is undefined (0/0) is left out of the mean; where that leaves none,
and where a prediction is NaN, the result is NaN.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from onecycle.errors import DataError
from onecycle.train.metrics import check_same_size, epoch_metric


@epoch_metric
def f1_score(preds: Tensor, targets: Tensor) -> float:
    """2 hits / (rows predicted + rows there), the harmonic mean of precision and recall.

    Two classes, from logits (n,), (n, 1) or (n, 2) and targets (n,): of class 1. More classes, (n, classes) and (n,):
    the mean over classes. Several labels, (n, labels) each: the mean over labels. A class is predicted where its logit
    is the highest, a label where it is above 0. Undefined for a class that is neither there nor predicted (where
    scikit-learn gives 0 for two classes and for labels).
    """
    scores, labels = _scores(preds, targets, "f1_score")
    if scores.isnan().any():
        return math.nan
    if labels.ndim == 2:
        counts = [(scores > 0) & labels.bool(), scores > 0, labels]
        hits, predicted, there = (count.sum(0) for count in counts)
    else:
        best, classes = scores.argmax(1), scores.shape[1]
        counts = [best[best == labels], best, labels]
        hits, predicted, there = (torch.bincount(count, minlength=classes) for count in counts)
    return (2 * hits.double() / (predicted + there)).nanmean().item()


@epoch_metric
def roc_auc(preds: Tensor, targets: Tensor) -> float:
    """The area under the ROC curve: how often a row that has the class scores above one that has not; ties count half.

    Two classes, from logits (n,), (n, 1) or (n, 2) and targets (n,). More classes, (n, classes) and (n,): each against
    the rest, by its softmax probability, and the mean over classes. Several labels, (n, labels) each: the mean over
    labels. For two classes and for labels only the order of the scores matters, so any monotone function of the logits
    gives the same. Undefined for a class that no row or every row has.
    """
    return _mean_over_classes(preds, targets, _area, "roc_auc")


@epoch_metric
def average_precision(preds: Tensor, targets: Tensor) -> float:
    """The mean of the precision at each row that has the class, from the highest score down (no interpolation).

    Shapes, classes and means are those of `roc_auc`, and so is what only the order matters for. Undefined for a class
    that no row has (where scikit-learn gives 0).
    """
    return _mean_over_classes(preds, targets, _precision, "average_precision")


@epoch_metric
def r2_score(preds: Tensor, targets: Tensor) -> float:
    """1 - squared error / squared distance from the mean: preds and targets (n,), (n, 1) or (n, columns).

    The mean over columns. A column of equal targets gives 1 where it is met exactly, else 0; a single row gives NaN.
    """
    found, wanted = _pair(preds, targets, "r2_score")
    if len(wanted) < 2:
        return math.nan
    error = (found - wanted).square().sum(0)
    spread = (wanted - wanted.mean(0)).square().sum(0)
    constant = wanted.amax(0) == wanted.amin(0)
    return torch.where(constant, (error == 0).double(), 1 - error / spread).mean().item()


@epoch_metric
def mse(preds: Tensor, targets: Tensor) -> float:
    """The mean squared error over all rows and columns, in the target's unit squared: (n,), (n, 1) or (n, columns)."""
    found, wanted = _pair(preds, targets, "mse")
    return (found - wanted).square().mean().item()


@epoch_metric
def rmse(preds: Tensor, targets: Tensor) -> float:
    """The square root of `mse`, in the target's unit: preds and targets (n,), (n, 1) or (n, columns)."""
    found, wanted = _pair(preds, targets, "rmse")
    return (found - wanted).square().mean().sqrt().item()


@epoch_metric
def mae(preds: Tensor, targets: Tensor) -> float:
    """The mean absolute error over all rows and columns, in the target's unit: (n,), (n, 1) or (n, columns)."""
    found, wanted = _pair(preds, targets, "mae")
    return (found - wanted).abs().mean().item()


def _mean_over_classes(preds: Tensor, targets: Tensor, curve: Callable[[Tensor, Tensor], float], name: str) -> float:
    """The mean of what `curve` makes of each class's hits and rows at the thresholds."""
    scores, labels = _scores(preds, targets, name)
    if labels.ndim == 1:
        scores = scores.softmax(1)
    if scores.isnan().any():
        return math.nan
    values: list[float] = []
    for column, column_scores in enumerate(scores.T):
        has_class = labels[:, column] if labels.ndim == 2 else labels == column
        values.append(curve(*_thresholds(column_scores, has_class)))
    return torch.tensor(values, dtype=torch.float64).nanmean().item()


def _thresholds(scores: Tensor, has_class: Tensor) -> tuple[Tensor, Tensor]:
    """For each distinct score, from the highest: how many rows that have the class, and how many in all, reach it."""
    ranked, order = scores.sort(descending=True)
    last = torch.cat([ranked[1:] != ranked[:-1], torch.ones_like(ranked[:1], dtype=torch.bool)])
    rows = last.nonzero().squeeze(1)
    return has_class[order].cumsum(0)[rows], rows + 1


def _area(hits: Tensor, rows: Tensor) -> float:
    misses = rows - hits
    with_class, without = int(hits[-1]), int(misses[-1])
    steps = misses.diff(prepend=misses.new_zeros(1))
    doubled = int((steps * (2 * hits - hits.diff(prepend=hits.new_zeros(1)))).sum())  # whole numbers: no rounding
    return doubled / (2 * with_class * without) if with_class and without else math.nan


def _precision(hits: Tensor, rows: Tensor) -> float:
    gained = hits.diff(prepend=hits.new_zeros(1))
    return (gained * (hits.double() / rows)).sum().item() / int(hits[-1]) if hits[-1] else math.nan


def _scores(preds: Tensor, targets: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Float64 scores and int64 labels: (n, k) and (n,) for more than two classes, else (n, labels) both.

    Two classes become one label, whose score is the difference of their logits. Raises DataError where the shapes do
    not go together or targets are no labels.
    """
    preds, targets = _float64(preds), targets.to(_place(targets))
    if preds.numel() == targets.numel():
        scores, labels, highest = preds.reshape(len(preds), -1), targets.reshape(len(preds), -1), 1
    elif preds.ndim > 1 and preds.numel() == targets.numel() * preds.shape[-1]:
        scores, labels = preds.flatten(0, -2), targets.flatten()
        highest = scores.shape[1] - 1
    else:
        raise DataError(
            f"{name}: the model gives {tuple(preds.shape)} for targets {tuple(targets.shape)}; "
            "expected (n, classes) for (n,), or the same shape"
        )
    odd = labels[(labels < 0) | (labels > highest) | (labels != labels.long())]
    if len(odd):
        raise DataError(f"{name}: targets contain {odd[0].item():g}; expected whole numbers from 0 to {highest}")
    labels = labels.long()
    if labels.ndim == 1 and highest == 1:
        return (scores[:, 1] - scores[:, 0])[:, None], labels[:, None]
    return scores, labels


def _pair(preds: Tensor, targets: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Both as float64 (n, columns). Raises DataError where they do not have as many numbers."""
    check_same_size(preds, targets, name)
    rows = len(targets)
    return _float64(preds).reshape(rows, -1), _float64(targets).reshape(rows, -1)


def _float64(values: Tensor) -> Tensor:
    return values.to(_place(values), torch.float64)


def _place(values: Tensor) -> torch.device:
    """The tensor's device, but the CPU for MPS, which has no float64."""
    return torch.device("cpu") if values.device.type == "mps" else values.device
