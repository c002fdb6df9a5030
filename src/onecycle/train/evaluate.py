"""Validation and prediction without gradients."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from onecycle.data.loaders import Loader
from onecycle.train.checks import FAILURES, explain
from onecycle.train.scores import EpochScores
from onecycle.train.step import Forward, Objective, plain_forward

WholeBatchScores: TypeAlias = Callable[[nn.Module, Loader, Objective], Tensor | None]
"""Loss and metrics of a loader's whole batches at once, a row each; None if the engine does not capture validation."""


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: Loader, objective: Objective, whole_batches: WholeBatchScores | None = None
) -> list[float]:
    """Return the loss and each metric over `loader`, batch means weighted by batch size.

    Leaves the model in eval mode. Batches that `whole_batches` scores are not run here.
    """
    model.eval()
    scores = EpochScores(objective.metrics, objective.inverse_transform)
    rows = whole_batches(model, loader, objective) if whole_batches else None
    if rows is not None:
        scores.add_scores(rows, loader.batch_size or 0)
    for xb, yb in islice(loader.epoch(0), 0 if rows is None else len(rows), None):
        try:
            preds = objective.forward(model, xb)
            loss = objective.loss_func(preds, yb)
        except FAILURES as error:
            raise explain(error, model, objective.loss_func, xb, yb, "valid", objective.forward) from error
        scores.add(loss, preds, yb, len(yb[0]) if isinstance(yb, list | tuple) else len(yb))
    return scores.result()  # waits for the device, once


@torch.no_grad()
def predict(
    model: nn.Module, batches: Iterator[tuple[Any, Any]], forward: Forward = plain_forward
) -> tuple[Tensor, Tensor | None]:
    """Return the model's outputs and the targets (None if there are none), on the CPU.

    Leaves the model in eval mode.
    """
    model.eval()
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    for xb, yb in batches:
        try:
            outputs.append(forward(model, xb))
        except FAILURES as error:
            raise explain(error, model, None, xb, yb, "x", forward) from error
        if yb is not None:
            targets.append(yb)
    return torch.cat(outputs).cpu(), torch.cat(targets).cpu() if targets else None
