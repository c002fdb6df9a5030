"""The loss of a task, losses by name, and the activation that belongs to each."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onecycle.errors import DataError
from onecycle.train.losses import (
    NamedLoss,
    default_loss,
    flat_mse_loss,
    is_classification,
    loss_by_name,
    loss_name,
    output_activation,
)

OUTPUTS = torch.tensor([[1.0, -2.0, 0.5]])


@pytest.mark.parametrize(
    ("loss_func", "expected"),
    [
        (nn.CrossEntropyLoss(), OUTPUTS.softmax(-1)),
        (partial(F.cross_entropy, label_smoothing=0.1), OUTPUTS.softmax(-1)),
        (nn.NLLLoss(), OUTPUTS.exp()),
        (F.nll_loss, OUTPUTS.exp()),
        (nn.PoissonNLLLoss(), OUTPUTS.exp()),
        (F.kl_div, OUTPUTS.exp()),
        (nn.BCEWithLogitsLoss(), OUTPUTS.sigmoid()),
        (F.binary_cross_entropy_with_logits, OUTPUTS.sigmoid()),
        (nn.BCELoss(), OUTPUTS),
        (flat_mse_loss, OUTPUTS),
        (NamedLoss("CrossEntropyLoss"), OUTPUTS.softmax(-1)),
    ],
)
def test_the_activation_of_a_loss(loss_func: Any, expected: Tensor):
    assert torch.equal(output_activation(loss_func)(OUTPUTS), expected)


def test_which_losses_classify():
    for loss_func in (nn.CrossEntropyLoss(), partial(F.cross_entropy), nn.NLLLoss(), F.nll_loss):
        assert is_classification(loss_func)
    for loss_func in (nn.BCEWithLogitsLoss(), nn.MSELoss(), nn.PoissonNLLLoss(), flat_mse_loss):
        assert not is_classification(loss_func)


def test_the_default_loss_of_each_task():
    names = [loss_name(default_loss(task)) for task in ("classes", "regression", "multilabel")]
    assert names == ["CrossEntropyLoss", "flat_mse_loss", "BCEWithLogitsLoss"]


def test_losses_by_name():
    assert isinstance(loss_by_name("HuberLoss"), nn.HuberLoss)
    assert loss_by_name("smooth_l1_loss") is F.smooth_l1_loss
    assert loss_by_name("flat_mse_loss") is flat_mse_loss
    unknown = loss_by_name("my_loss")
    assert loss_name(unknown) == "my_loss"
    with pytest.raises(DataError, match=r"only the name of its loss \(my_loss\); set learn.loss_func to use it"):
        unknown(OUTPUTS, OUTPUTS)


def test_a_column_fits_a_vector_and_nothing_else_is_broadcast():
    assert flat_mse_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 4.0])) == 2
    with pytest.raises(DataError, match=r"the model returns \(3,\) for a row and y has \(\); expected one output"):
        flat_mse_loss(OUTPUTS, torch.zeros(1))
