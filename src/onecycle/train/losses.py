"""Losses: the default for a task, losses by name, and the activation that belongs to a loss."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onecycle.core.checks import unwrap_partial
from onecycle.errors import DataError
from onecycle.train.step import LossFunc


def flat_mse_loss(preds: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error; shapes (n, 1) and (n,) fit each other. Raises DataError for other differences."""
    if preds.numel() != targets.numel():
        raise DataError(
            f"the model returns {tuple(preds.shape[1:])} for a row and y has {tuple(targets.shape[1:])}; "
            "expected one output per target column"
        )
    return F.mse_loss(preds.view_as(targets), targets)


class NamedLoss:
    """Stands for a loss of which a bundle has only the name. Calling it raises DataError."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *_: Any) -> Tensor:
        raise DataError(f"the bundle has only the name of its loss ({self.__name__}); set learn.loss_func to use it")


def default_loss(task: str) -> LossFunc:
    """Return mean squared error for regression, binary cross-entropy for several labels, else cross-entropy."""
    return {"regression": flat_mse_loss, "multilabel": nn.BCEWithLogitsLoss()}.get(task, nn.CrossEntropyLoss())


def loss_name(loss_func: Any) -> str:
    """Return the name of a loss function, or of a module's class; that of the function of a partial."""
    inner = unwrap_partial(loss_func)
    return getattr(inner, "__name__", type(inner).__name__)


_FUNCTIONS: tuple[Any, ...] = (
    *(flat_mse_loss, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.poisson_nll_loss),
    *(F.cross_entropy, F.nll_loss, F.binary_cross_entropy, F.binary_cross_entropy_with_logits, F.kl_div),
)


def loss_by_name(name: str) -> LossFunc:
    """Return the loss of torch.nn or of this library with that name and default settings, else a NamedLoss."""
    if name in nn.modules.loss.__all__:
        with suppress(TypeError):  # some have arguments without a default
            return getattr(nn, name)()
    return next((function for function in _FUNCTIONS if function.__name__ == name), NamedLoss(name))


def is_classification(loss_func: LossFunc) -> bool:
    """Return whether a loss takes a score for each of several classes, of which one is right."""
    return _short_name(loss_name(loss_func)) in ("crossentropy", "nll")


def is_binary(loss_func: LossFunc) -> bool:
    """Return whether a loss takes a logit or a probability for each label."""
    return _short_name(loss_name(loss_func)) in ("bce", "binarycrossentropy", *_SIGMOID)


_SIGMOID = ("bcewithlogits", "binarycrossentropywithlogits")


def output_activation(loss_func: LossFunc) -> Callable[[Tensor], Tensor]:
    """Return the function from a model's outputs to probabilities or values, for the loss it was trained with."""
    match _short_name(loss_name(loss_func)):
        case "crossentropy":
            return _softmax
        case "nll" | "poissonnll" | "kldiv":
            return torch.exp
        case name if name in _SIGMOID:
            return torch.sigmoid
        case _:
            return _identity


def _short_name(name: str) -> str:
    """Return what the class and the function of a loss have in common: "nll" for NLLLoss and nll_loss."""
    return name.lower().replace("_", "").removesuffix("loss")


def _softmax(outputs: Tensor) -> Tensor:
    return outputs.softmax(min(1, outputs.ndim - 1))  # the classes are the second dimension, as for torch's loss


def _identity(outputs: Tensor) -> Tensor:
    return outputs
