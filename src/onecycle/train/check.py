"""Does the model fit the data? Errors in the user's words instead of torch's."""

from typing import Any

import torch
from torch import Tensor, nn

from onecycle.core.errors import DataError, ModelError, OneCycleError, SettingError
from onecycle.data.batches import Batches, InMemoryLoader
from onecycle.train.step import LossFunc, forward


def check_before_fit(model: nn.Module, loss_func: LossFunc, train_dl: Batches, valid_dl: Batches | None) -> None:
    """Try the model on a few rows in eval mode and look at all labels, before anything is changed.

    Raises ModelError for rows the model cannot take, and DataError for targets its outputs do not fit. Loaders that
    are not in memory are not looked at; their errors come with the batch that has them.
    """
    for name, loader in (("train", train_dl), ("valid", valid_dl)):
        if not isinstance(loader, InMemoryLoader):
            continue
        xb, yb = loader.peek()
        if yb is None:
            raise DataError(f"{name} has no targets; expected a pair (x, y)")
        modes = [(module, module.training) for module in model.modules()]
        model.eval()
        try:
            with torch.no_grad():
                preds = forward(model, xb)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise explain(error, model, loss_func, xb, yb, name) from error
        finally:
            for module, mode in modes:
                module.training = mode
        if isinstance(preds, Tensor):
            check_targets(loss_func, preds, loader.tensors[-1], name)


def explain(
    error: Exception, model: nn.Module, loss_func: LossFunc | None, xb: Any, yb: Any, name: str
) -> OneCycleError | Exception:
    """The error to raise for `error`, which came up on batch (xb, yb): ours where the cause is known, else `error`."""
    if isinstance(error, OneCycleError):
        return error
    x = xb[0] if isinstance(xb, list) else xb
    first = next((m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)), None)
    if isinstance(x, Tensor) and isinstance(first, nn.Linear) and x.shape[-1:] != (first.in_features,):
        layer = next(name for name, module in model.named_modules() if module is first)
        if "shape" in str(error) or "size" in str(error):
            return ModelError(
                f"{name}.x has {x.shape[-1]} columns (shape {tuple(x.shape)}); the model's first Linear layer"
                f"{f' ({layer})' if layer else ''} takes {first.in_features}: change the layer, or the columns of x"
            )
    if loss_func is not None and yb is not None:
        try:
            with torch.no_grad():
                preds = forward(model, xb)
            check_targets(loss_func, preds, yb, name)
        except OneCycleError as ours:
            return ours
        except Exception:  # the model fails on this batch, which `error` already says
            return error
    return error


def check_targets(loss_func: LossFunc, preds: Tensor, targets: Tensor, name: str) -> None:
    """Raises DataError where `targets` cannot belong to outputs like `preds` under a cross-entropy loss."""
    if not _is_cross_entropy(loss_func) or preds.ndim < 2:
        return
    outputs = preds.shape[1]
    if targets.is_floating_point():
        if targets.shape[1:2] == (outputs,):
            return  # a probability for each class
        raise DataError(
            f"{name}.y holds floats (for example {targets.flatten()[0].item():g}); cross-entropy expects whole-number "
            f"class labels (0-{outputs - 1}): use y.long(), or a regression loss such as nn.MSELoss()"
        )
    ignored = getattr(loss_func, "ignore_index", -100)
    labels = targets[targets != ignored]
    if not labels.numel():
        return
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= outputs:
        found = lowest if lowest < 0 else highest
        raise DataError(
            f"{name}: labels contain {found}; the model has {outputs} classes (0-{outputs - 1}): "
            "give the model's last layer as many outputs as there are classes, or number the labels from 0"
        )


def _is_cross_entropy(loss_func: LossFunc) -> bool:
    return isinstance(loss_func, nn.CrossEntropyLoss | nn.NLLLoss) or loss_func in (
        nn.functional.cross_entropy,
        nn.functional.nll_loss,
    )


def checked_epochs(epochs: Any, name: str) -> int:
    """`epochs` where it is a whole number of at least 0; SettingError otherwise."""
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
        raise SettingError(f"{name} is {epochs!r}; expected a whole number of at least 0")
    return epochs
