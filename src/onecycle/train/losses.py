"""The loss that goes with the targets, and what turns a model's outputs into predictions for a loss."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onecycle.core.errors import DataError
from onecycle.train.step import LossFunc


def flat_mse_loss(preds: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error, with (n, 1) and (n,) taken as the same; anything else of another shape is an error."""
    return F.mse_loss(preds.view_as(targets), targets)


def default_loss(targets: Tensor | None) -> LossFunc:
    """Cross-entropy for whole-number targets, mean squared error for floats."""
    return flat_mse_loss if targets is not None and targets.is_floating_point() else nn.CrossEntropyLoss()


def activation(loss_func: Any) -> Callable[[Tensor], Tensor]:
    """What makes probabilities (or values) of a model's outputs, by the loss that it was trained with."""
    name = loss_func if isinstance(loss_func, str) else loss_name(loss_func)
    return _ACTIVATIONS.get(name.lower().replace("_", "").removesuffix("loss"), _identity)


def loss_name(loss_func: Any) -> str:
    """The name of a loss function or module."""
    return getattr(loss_func, "__name__", type(loss_func).__name__)


class NamedLoss:
    """Stands for a loss of which a bundle only keeps the name."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *_: Any) -> Tensor:
        raise DataError(f"the bundle keeps only the name of its loss ({self.__name__}); set learn.loss_func to use it")


def _softmax(x: Tensor) -> Tensor:
    return x.softmax(-1)


def _identity(x: Tensor) -> Tensor:
    return x


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "crossentropy": _softmax,
    "nll": torch.exp,
    "poissonnll": torch.exp,
    "kldiv": torch.exp,
    "bcewithlogits": torch.sigmoid,
    "binarycrossentropywithlogits": torch.sigmoid,
}
