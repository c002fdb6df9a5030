"""A bundle as a learner that goes on with the loss it was trained with."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conftest import seeded, toy_arrays
from onecycle import MLP, DataBunch, Learner, load_learner
from onecycle.errors import DataError
from onecycle.train.losses import NamedLoss, flat_mse_loss, loss_by_name, loss_name


def floats() -> DataBunch:
    """Rows with four targets of 0 or 1, as floats: the default loss is mean squared error."""
    (x, y), (x_valid, y_valid) = toy_arrays(), toy_arrays(50, seed=1)
    return DataBunch.create((x, F.one_hot(y, 4).float()), (x_valid, F.one_hot(y_valid, 4).float()), bs=16, seed=3)


def loaded(folder: Path, loss_func: Any) -> tuple[Learner, Learner]:
    """A learner with that loss, and what its bundle makes with the same data."""
    learn = Learner(floats(), seeded(MLP(20, 8, 4)), loss_func=loss_func, silent=True)
    again = load_learner(learn.export(folder / "b"), data=learn.data)
    again.silent = True
    return learn, again


@pytest.mark.parametrize(
    "loss_func",
    [nn.BCEWithLogitsLoss(), nn.L1Loss(), F.binary_cross_entropy_with_logits, F.huber_loss, flat_mse_loss, None],
    ids=lambda loss_func: loss_name(loss_func) if loss_func else "default",
)
def test_the_loss_comes_back_with_data(tmp_path: Path, loss_func: Any):
    learn, again = loaded(tmp_path, loss_func)
    assert again.validate() == pytest.approx(learn.validate())
    x = learn.data.valid_ds.tensors[0]
    without = load_learner(tmp_path / "b", device="cpu")
    for each in (again, without):
        assert torch.allclose(each.get_preds(x)[0], learn.get_preds(x)[0], atol=1e-6)


def test_settings_of_a_loss_are_not_kept(tmp_path: Path):
    again = loaded(tmp_path, partial(F.smooth_l1_loss, beta=2.0))[1]
    assert again.loss_func is F.smooth_l1_loss


def cross_entropy_of_its_own(preds: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(preds, targets)


@pytest.mark.parametrize("loss_func", [cross_entropy_of_its_own, lambda preds, y: F.mse_loss(preds, y)])
def test_a_loss_that_nobody_knows_is_asked_for(tmp_path: Path, loss_func: Any):
    learn, again = loaded(tmp_path, loss_func)
    assert isinstance(again.loss_func, NamedLoss)
    assert torch.equal(again.get_preds()[0], learn.get_preds()[0])
    for call in (again.validate, partial(again.fit, 1)):
        with pytest.raises(
            DataError, match=rf"name of its loss \({loss_name(loss_func)}\); set learn.loss_func to use"
        ):
            call()
    again.loss_func = loss_func
    assert again.validate() == pytest.approx(learn.validate())


@pytest.mark.parametrize(
    "name", ["Module", "Linear", "_Loss", "__all__", "LinearCrossEntropyLoss", "relu", "<lambda>", ""]
)
def test_a_name_in_a_bundle_makes_a_loss_or_nothing(name: str):
    assert isinstance(loss_by_name(name), NamedLoss)
    assert loss_name(loss_by_name(name)) == name
