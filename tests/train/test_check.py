"""What cannot be trained with, in the user's words, before the first step."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from conftest import Net
from onecycle import DataBunch, GradientClip, Learner
from onecycle.errors import SettingError

ADAM = "expected .*opt_func=torch.optim.Adam"


@pytest.mark.parametrize(
    ("opt_func", "message"),
    [
        (
            torch.optim.SGD(Net().parameters(), lr=1.0),
            r"opt_func is an optimizer that is made already; expected its class, opt_func=SGD, or .*partial\(SGD, ...\)",
        ),
        ("adam", f"opt_func is 'adam'; {ADAM}"),
        (None, f"opt_func is None; {ADAM}"),
        (torch.optim.LBFGS, f"opt_func: LBFGS asks for the loss several times in a step; {ADAM}"),
        (partial(torch.optim.LBFGS, max_iter=3), "opt_func: LBFGS asks for the loss"),
        (
            torch.optim.SparseAdam,
            f"opt_func: SparseAdam takes sparse gradients alone, and Linear has others; {ADAM}, or torch.optim.SGD",
        ),
    ],
)
def test_an_opt_func_that_makes_no_optimizer_for_the_model(toy: DataBunch, opt_func: Any, message: str):
    for call in (lambda learn: learn.fit(1), lambda learn: learn.lr_find()):
        with pytest.raises(SettingError, match=message):
            call(Learner(toy, Net(), opt_func=opt_func, silent=True))


def test_sparse_adam_trains_what_is_sparse():
    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = nn.Embedding(10, 4, sparse=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scores(x[:, 0])

    x = torch.arange(200)[:, None] % 10
    learn = Learner(
        DataBunch.create((x, x[:, 0] % 4), bs=16, seed=0), Lookup(), opt_func=torch.optim.SparseAdam, silent=True
    )
    learn.fit(3, 0.1)
    assert learn.recorder.losses[-1] < learn.recorder.losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"callbacks": [GradientClip]}, r"callbacks: GradientClip is a class; expected GradientClip\(...\)"),
        (
            {"callback_fns": [GradientClip(1.0)]},
            r"callback_fns: GradientClip\(...\) is a callback already; give it as callbacks=",
        ),
        ({"callback_fns": [3]}, "callback_fns: 3 is no function; expected one that takes the learner"),
    ],
)
def test_callbacks_that_are_none(toy: DataBunch, options: dict[str, Any], message: str):
    for call in (lambda learn: learn.fit(1), lambda learn: learn.lr_find()):
        with pytest.raises(SettingError, match=message):
            call(Learner(toy, Net(), silent=True, **options))


def test_a_class_among_the_callbacks_of_a_fit(toy: DataBunch):
    with pytest.raises(SettingError, match=r"callbacks: GradientClip is a class; expected GradientClip\(...\)"):
        Learner(toy, Net(), silent=True).fit(1, callbacks=[GradientClip])
