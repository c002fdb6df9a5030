"""GradientClip limits the total norm, and changes nothing below it."""

from functools import partial

import pytest
import torch
from torch.optim import SGD

from conftest import Net, seeded
from onecycle import DataBunch, GradientClip, Learner
from onecycle.errors import SettingError


def test_a_step_is_at_most_the_norm_times_the_rate(toy: DataBunch):
    learn = Learner(toy, seeded(Net()), opt_func=SGD, wd=0.0, callbacks=GradientClip(1e-3), silent=True)
    before = [parameter.detach().clone() for parameter in learn.model.parameters()]
    learn.fit(1, 1.0)
    moves = [(new - old).flatten() for new, old in zip(learn.model.parameters(), before, strict=True)]
    assert 0 < torch.cat(moves).norm() <= 1e-3 * len(toy.train_dl) * 1.001


def test_smaller_gradients_are_left_alone(toy: DataBunch):
    weights = []
    for callbacks in (None, GradientClip(1e6)):
        learn = Learner(
            toy, seeded(Net()), opt_func=partial(SGD, momentum=0.9), callbacks=callbacks, silent=True, engine="eager"
        )
        learn.fit(1, 1e-2)
        weights.append(learn.model.lin1.weight)
    assert torch.equal(*weights)


@pytest.mark.parametrize("max_norm", [0, -1.0, float("inf")])
def test_a_norm_that_cannot_be_used(max_norm: float):
    with pytest.raises(SettingError, match="GradientClip's max_norm is .*; expected a finite number above 0"):
        GradientClip(max_norm)
