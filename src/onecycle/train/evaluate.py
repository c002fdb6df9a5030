"""Validation and prediction without gradients."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from onecycle.core.nested import concatenate, count_rows, map_tensors
from onecycle.data.loaders import InMemoryLoader, Loader
from onecycle.errors import DataError
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
    batches = loader.epoch(0)
    if rows is not None:
        assert isinstance(loader, InMemoryLoader)  # no other has batches that are scored together
        scores.add_scores(rows, loader.batch_size)
        batches = loader.epoch(0, first=len(rows))
    for xb, yb in batches:
        try:
            preds = objective.forward(model, xb)
            loss = objective.loss_func(preds, yb)
        except FAILURES as error:
            raise explain(error, model, objective.loss_func, xb, yb, "valid", objective.forward) from error
        scores.add(loss, preds, yb, _rows(xb, yb))
    return scores.result()  # waits for the device, once


@torch.no_grad()
def predict(model: nn.Module, batches: Iterator[tuple[Any, Any]], forward: Forward = plain_forward) -> tuple[Any, Any]:
    """Return the model's outputs and the targets (None if there are none), on the CPU, nested as the model has them.

    Leaves the model in eval mode. Raises DataError if there are no batches, or outputs that do not have the rows first.
    """
    model.eval()
    outputs: list[Any] = []
    targets: list[Any] = []
    sizes: list[int | None] = []
    for xb, yb in batches:
        try:
            outputs.append(forward(model, xb))
        except FAILURES as error:
            raise explain(error, model, None, xb, yb, "x", forward) from error
        if isinstance(outputs[-1], Tensor) and outputs[-1].ndim == 0:
            raise DataError(f"{type(model).__name__} returns a single number for a batch; expected an output a row")
        sizes.append(count_rows(xb))
        if yb is not None:
            targets.append(yb)
    if not outputs:
        raise DataError("there are no batches to predict; expected at least one row")
    try:
        joined = concatenate(outputs, "the model's output", sizes)
    except DataError as error:
        raise DataError(
            f"{error}; let forward return such outputs in eval mode, or call learn.model on the batches yourself"
        ) from error
    joined_targets = concatenate(targets, "y", sizes[: len(targets)]) if targets else None
    return map_tensors(Tensor.cpu, joined), map_tensors(Tensor.cpu, joined_targets)


def _rows(xb: Any, yb: Any) -> int:
    """Return the number of rows of a batch, by its targets or, if these have no tensors, its inputs."""
    return count_rows(yb) or count_rows(xb) or len(yb)
