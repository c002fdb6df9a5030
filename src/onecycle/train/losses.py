"""The loss that goes with the targets, and what turns a model's outputs into predictions for a loss."""

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
    """Mean squared error, with (n, 1) and (n,) taken as the same. Raises DataError for any other difference."""
    if preds.numel() != targets.numel():
        raise DataError(
            f"the model gives {tuple(preds.shape[1:])} for a row and y has {tuple(targets.shape[1:])}; "
            "expected as many outputs as target columns"
        )
    return F.mse_loss(preds.view_as(targets), targets)


def default_loss(task: str) -> LossFunc:
    """Mean squared error for a regression, binary cross-entropy for several labels, else cross-entropy."""
    return {"regression": flat_mse_loss, "multilabel": nn.BCEWithLogitsLoss()}.get(task, nn.CrossEntropyLoss())


def output_activation(loss_func: Any) -> Callable[[Tensor], Tensor]:
    """What makes probabilities (or values) of a model's outputs, by the loss that it was trained with."""
    name = loss_func if isinstance(loss_func, str) else loss_name(loss_func)
    return _ACTIVATIONS.get(name.lower().replace("_", "").removesuffix("loss"), _identity)


def loss_name(loss_func: Any) -> str:
    """The name of a loss function or module; of a partial, what it calls."""
    inner = unwrap_partial(loss_func)
    return getattr(inner, "__name__", type(inner).__name__)


def loss_by_name(name: str) -> LossFunc:
    """The loss that the library or torch.nn has by that name, without settings, else a NamedLoss."""
    if name in nn.modules.loss.__all__:
        with suppress(TypeError):  # some must be told their sizes
            return getattr(nn, name)()
    return next((function for function in _FUNCTIONS if function.__name__ == name), NamedLoss(name))


_FUNCTIONS: tuple[Any, ...] = (
    *(flat_mse_loss, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.poisson_nll_loss),
    *(F.cross_entropy, F.nll_loss, F.binary_cross_entropy, F.binary_cross_entropy_with_logits, F.kl_div),
)


class NamedLoss:
    """Stands for a loss of which a bundle only keeps the name."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *_: Any) -> Tensor:
        raise DataError(f"the bundle keeps only the name of its loss ({self.__name__}); set learn.loss_func to use it")


def is_classification(loss_func: Any) -> bool:
    """Whether a loss takes a score for each of several classes, of which one is right."""
    return loss_name(loss_func).lower().replace("_", "").removesuffix("loss") in ("crossentropy", "nll")


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
