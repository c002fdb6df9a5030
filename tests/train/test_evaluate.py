"""Validation and prediction, without a learner around them."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from conftest import Net, seeded, toy_arrays
from onecycle import accuracy, f1_score
from onecycle.data.loaders import InMemoryLoader
from onecycle.errors import DataError, ModelError
from onecycle.train.evaluate import evaluate, predict
from onecycle.train.scores import batch_scores
from onecycle.train.step import Objective

X, Y = toy_arrays(50)
OBJECTIVE = Objective(nn.CrossEntropyLoss(), [accuracy])


def loader(x: Tensor = X, y: Tensor | None = Y, bs: int = 16) -> InMemoryLoader:
    tensors = (x,) if y is None else (x, y)
    return InMemoryLoader(TensorDataset(*tensors), bs, torch.device("cpu"), seed=0)


def test_means_are_weighted_by_batch_size_and_equal_those_of_one_batch():
    model = seeded(Net())
    small, whole = evaluate(model, loader(), OBJECTIVE), evaluate(model, loader(bs=50), OBJECTIVE)
    assert small == pytest.approx(whole, rel=1e-6)
    assert not model.training


def test_batches_that_are_scored_together_are_not_run_again():
    model, rows = seeded(Net()).eval(), []

    def whole_batches(model: nn.Module, batches: InMemoryLoader, objective: Objective) -> Tensor:
        scored = []
        for x, y in list(batches.epoch(0))[:3]:
            preds = model(x)
            scored.append(batch_scores(objective.loss_func(preds, y), objective.metrics, preds, y))
        return torch.stack(scored)

    model.register_forward_hook(lambda _, args, __: rows.append(len(args[0])))
    together = evaluate(model, loader(), OBJECTIVE, whole_batches)
    assert rows == [16, 16, 16, 2]
    assert together == evaluate(model, loader(), OBJECTIVE)


def test_metrics_see_the_targets_units_and_the_loss_does_not():
    x, y = X, X[:, :1]
    model = seeded(Net(outputs=1))

    def mean_target(preds: Tensor, targets: Tensor) -> Tensor:
        return targets.mean()

    plain = evaluate(model, loader(x, y), Objective(nn.MSELoss(), [mean_target]))
    shifted = evaluate(
        model, loader(x, y), Objective(nn.MSELoss(), [mean_target], inverse_transform=lambda values: values + 100)
    )
    assert shifted[0] == plain[0]
    assert shifted[1] == pytest.approx(plain[1] + 100)


def test_no_batches():
    with pytest.raises(DataError, match="no batches"):
        evaluate(Net(), loader(X[:0], Y[:0]), Objective(nn.CrossEntropyLoss(), [f1_score]))


def test_predictions_are_in_order_and_targets_only_if_there_are_some():
    model = seeded(Net())
    outputs, targets = predict(model, loader().epoch(0))
    assert torch.equal(outputs, model(X).detach())
    assert targets is not None
    assert torch.equal(targets, Y)
    assert predict(model, loader(y=None).epoch(0))[1] is None


def test_rows_that_do_not_fit_are_explained():
    with pytest.raises(ModelError, match=r"x has 19 columns .* takes 20"):
        predict(Net(), loader(X[:, :19]).epoch(0))
