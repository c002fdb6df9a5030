"""Loss and metrics tried on a few rows before the first step: what fails is named, with what would fit."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from onecycle.core.device import borrowed_generators
from onecycle.core.errors import OneCycleError, SettingError
from onecycle.data.batches import InMemoryLoader
from onecycle.train.losses import loss_name
from onecycle.train.metrics import Metric, is_over_the_epoch, is_plain, metric_name
from onecycle.train.step import LossFunc, plain_forward
from onecycle.train.tally import Tally


def tried_loss(loss_func: LossFunc, preds: Any, targets: Any) -> Any:
    """The loss of a batch. Raises SettingError where it fails, or where torch warns that it pairs rows with others."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Using a target size", UserWarning)
            return loss_func(preds, targets)
    except OneCycleError:
        raise
    except Exception as error:  # whatever a user's function raises
        if not isinstance(preds, Tensor) or not isinstance(targets, Tensor):
            raise
        raise SettingError(
            f"the loss {loss_name(loss_func)} is given outputs {_shape(preds)} and targets {_shape(targets)}"
            f"{'' if isinstance(error, UserWarning) else f' ({_said(error)})'}; {_fitting_loss(preds, targets)}"
        ) from error


def try_metrics(
    metrics: Sequence[Metric],
    model: nn.Module,
    loader: InMemoryLoader,
    restore: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Try metrics that are plain functions on a few rows, the model in eval mode; `restore` is the tally's.

    Those that may keep a state are left alone. Raises SettingError, or what our own metrics raise, for one that fails
    or gives no number.
    """
    with borrowed_generators(loader.tensors[0].device):
        for metric in filter(is_plain, metrics):
            if _failure(metric, model, [loader.peek()], restore):  # perhaps these rows are too few
                batches = islice(loader.epoch(0), None if is_over_the_epoch(metric) else 1)
                if error := _failure(metric, model, batches, restore):
                    raise error from error.__cause__


def _failure(
    metric: Metric,
    model: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    restore: Callable[[Tensor], Tensor] | None,
) -> SettingError | None:
    """What to say where a metric fails on these batches; errors of ours are raised as they are."""
    preds = yb = None
    tally = Tally([metric], restore)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is said of a few rows need not hold of all
            for xb, yb in batches:
                preds = plain_forward(model, xb)
                tally.add(torch.zeros(()), preds, yb, 1)
            tally.result()
    except OneCycleError:
        raise
    except Exception as error:  # whatever a user's function raises
        failure = SettingError(
            f'metric "{metric_name(metric)}" fails on outputs {_shape(preds)} and targets {_shape(yb)} '
            f"({_said(error)}); expected a function of (outputs, targets) that gives one number{_fitting(yb)}"
        )
        failure.__cause__ = error
        return failure
    return None


def _fitting_loss(preds: Tensor, targets: Tensor) -> str:
    if preds.numel() != targets.numel():
        labels = not targets.is_floating_point() and targets.ndim == preds.ndim - 1
        if labels:
            return "for labels of classes use nn.CrossEntropyLoss()"
        return "expected as many outputs for a row as y has columns"
    shape = ", ".join(map(str, (-1, *preds.shape[1:])))
    reshaped = f".reshape({shape})" if preds.shape != targets.shape else ""
    as_float = "" if targets.is_floating_point() else ".float()"
    mend = reshaped + as_float
    return f"expected targets like the outputs: use y{mend}" if mend else "expected a function of (outputs, targets)"


def _fitting(targets: Any) -> str:
    """The metrics for such targets, to end a sentence with."""
    if not isinstance(targets, Tensor):
        return ""
    if not targets.is_floating_point():
        return ", for classes for example accuracy, f1_score or roc_auc"
    return ", for a regression for example rmse, mae or r2_score, for labels of 0 and 1 f1_score or roc_auc"


def _shape(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"of type {type(value).__name__}"
    return f"{tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"


def _said(error: Exception) -> str:
    """The error's kind and first line."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
