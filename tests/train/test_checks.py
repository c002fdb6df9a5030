"""A model, loss, metric or optimizer that does not fit is named before the first step, with what would fit."""

import random
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import classification

from conftest import Net, seeded, toy_arrays
from onecycle import DataBunch, Learner, accuracy, epoch_metric, error_rate, mean_squared_error
from onecycle.errors import DataError, SettingError
from onecycle.train.checks import check_before_fit
from onecycle.train.step import Objective

ADAM = "expected .*opt_func=torch.optim.Adam"
X, Y = toy_arrays(100)
VALUE, LABELS = X[:, 0], (X[:, :4] > 0).float()


def learner(y: Tensor, outputs: int = 4, **options: Any) -> Learner:
    data = DataBunch.create((X, y), (X, y), bs=64, seed=1)
    return Learner(data, seeded(Net(outputs=outputs)), silent=True, **options)


def refused(learn: Learner) -> str:
    """What a fit is refused with; the model is as it was."""
    before = [parameter.clone() for parameter in learn.model.parameters()]
    with pytest.raises((SettingError, DataError)) as raised:
        learn.fit(1, 1e-3)
    assert all(torch.equal(a, b) for a, b in zip(before, learn.model.parameters(), strict=True))
    assert learn.recorder is None or not learn.recorder.record.losses
    return str(raised.value)


def broken(preds: Tensor, targets: Tensor) -> float:
    return 1 / 0


def of_each_row(preds: Tensor, targets: Tensor) -> Tensor:
    return (preds.argmax(1) == targets).float()


def of_one(preds: Tensor) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("learn", "said"),
    [
        (learner(VALUE, 1, metrics=accuracy), "accuracy: the model returns (64, 1) for targets (64,) of float32; accuracy is"),
        (learner(VALUE, 1, metrics=error_rate), "error_rate is for classes, with outputs (n, classes) for labels (n,)."),
        (learner(LABELS, loss_func=nn.BCEWithLogitsLoss(), metrics=accuracy), "several labels of 0 and 1 f1_score, roc_auc"),
        (learner(Y, metrics=mean_squared_error), "mean_squared_error: the model returns (64, 4) for targets (64,); expected"),
        (learner(Y, metrics=of_each_row), 'metric "of_each_row" returns 64 numbers (shape (64,)); expected one'),
        (learner(Y, metrics=epoch_metric(of_each_row)), 'metric "of_each_row" returns 64 numbers (shape (64,))'),
        (
            learner(Y, metrics=[accuracy, broken]),
            'metric "broken" fails on outputs (64, 4) of float32 and targets (64,) of int64 (ZeroDivisionError: division by '
            "zero); expected a function of (outputs, targets) that returns one number; for classes use for example accuracy",
        ),
        (learner(VALUE, 1, metrics=partial(broken)), "returns one number; for regression use for example rmse, mae or r2_score"),
        (learner(Y, metrics=epoch_metric(broken)), 'metric "broken" fails on outputs (36, 4) of float32'),
        (learner(Y, metrics=of_one), "(TypeError: of_one() takes 1 positional argument but 2 were given); expected a function"),
    ],
)  # fmt: skip
def test_a_metric_that_does_not_fit(learn: Learner, said: str):
    assert said in refused(learn)


@pytest.mark.parametrize(
    ("y", "outputs", "loss", "said"),
    [
        (Y, 4, nn.MSELoss(), "the loss MSELoss does not fit outputs (64, 4) of float32 and targets (64,) of int64; for class labels use nn.CrossEntropyLoss()"),
        (Y, 4, partial(F.l1_loss), "the loss l1_loss does not fit outputs (64, 4) of float32 and targets (64,) of int64; for cla"),
        (Y, 4, nn.BCEWithLogitsLoss(), "(ValueError: Target size (torch.Size([64])) must be the same as input size (torch.Size([64, 4]))); for class labels"),
        (VALUE, 1, nn.MSELoss(), "targets (64,) of float32; expected targets like the outputs: use y.reshape(-1, 1)"),
        (X[:, :3], 1, nn.MSELoss(), "targets (64, 3) of float32; expected one output per column of y"),
        (Y % 2, 1, nn.BCEWithLogitsLoss(), "expected targets like the outputs: use y.reshape(-1, 1).float()"),
        (Y, 4, broken, "(ZeroDivisionError: division by zero)"),
        (VALUE[:, None], 1, broken, "(ZeroDivisionError: division by zero); expected a function of (outputs, targets)"),
    ],
)  # fmt: skip
def test_a_loss_that_does_not_fit(y: Tensor, outputs: int, loss: Any, said: str):
    learn = learner(y, outputs, loss_func=loss)
    assert said in refused(learn)  # and torch's warnings, which would be errors, are not heard
    with pytest.raises(SettingError, match="the loss .* does not fit outputs"):
        learn.lr_find()


def test_batches_of_a_torch_loader_are_explained_as_they_come():
    data = DataBunch(DataLoader(TensorDataset(X, Y), 64))
    with pytest.raises(
        SettingError, match=r"the loss BCEWithLogitsLoss does not fit outputs \(64, 4\) .*; for class lab"
    ):
        Learner(data, Net(), nn.BCEWithLogitsLoss(), silent=True).fit(1, 1e-3)


def test_the_users_own_error_is_the_cause():
    for options in ({"metrics": broken}, {"loss_func": broken}):
        with pytest.raises(SettingError) as raised:
            learner(Y, **options).fit(1, 1e-3)
        assert isinstance(raised.value.__cause__, ZeroDivisionError)


def check(learn: Learner, **options: Any) -> None:
    """The check before a fit of a learner that measures `options`."""
    check_before_fit(
        learn.model, Objective(learn.loss_func, learn.metrics, **options), learn.data.train_dl, learn.data.valid_dl
    )


def needs_rows(preds: Tensor, targets: Tensor) -> float:
    if len(targets) < 90:
        raise ValueError("too few rows")
    warnings.warn("heard", stacklevel=2)
    return 0.5


def test_a_metric_that_needs_all_rows_gets_them():
    learn = learner(Y, metrics=epoch_metric(needs_rows))
    check(learn)  # and its warning is suppressed
    with pytest.warns(UserWarning, match="heard"):
        learn.fit(1, 1e-3)
    assert learn.recorder.metrics == [[0.5]]
    with pytest.raises(SettingError, match='metric "needs_rows" fails on outputs .64, 4.*too few rows'):
        check(learner(Y, metrics=needs_rows))


def test_metrics_see_the_inverse_transform():
    def positive(preds: Tensor, targets: Tensor) -> float:
        assert targets.min() > 0
        return preds.mean()

    learn = learner(VALUE, 1, metrics=positive)
    check(learn, inverse_transform=lambda values: values + 100)
    with pytest.raises(SettingError, match="AssertionError"):
        check(learn)


def test_metrics_with_a_state_are_tried_too():
    with pytest.raises(SettingError, match=r'metric "MulticlassF1Score" fails on outputs \(64, 4\) .*ValueError'):
        learner(Y, metrics=classification.MulticlassF1Score(3)).fit(1, 1e-3)


def test_trying_metrics_leaves_no_trace():
    calls: list[int] = []

    def counts(preds: Tensor, targets: Tensor) -> float:
        calls.append(len(preds))
        return 0.0

    def noisy(preds: Tensor, targets: Tensor) -> float:
        return float(torch.rand(())) + random.random() + np.random.rand()

    running = classification.MulticlassF1Score(4)
    running.update(torch.eye(4), torch.arange(4))
    learn = learner(Y, metrics=[counts, running, noisy])
    before = [str(torch.get_rng_state().tolist()), str(np.random.get_state()), random.getstate()]
    check(learn)
    assert calls == []
    assert running.compute() == 1
    assert [str(torch.get_rng_state().tolist()), str(np.random.get_state()), random.getstate()] == before


@pytest.mark.parametrize(
    ("opt_func", "message"),
    [
        (
            torch.optim.SGD(Net().parameters(), lr=1.0),
            r"opt_func is an optimizer instance; expected its class, opt_func=SGD, or .*partial\(SGD, ...\)",
        ),
        ("adam", f"opt_func is 'adam'; {ADAM}"),
        (None, f"opt_func is None; {ADAM}"),
        (torch.optim.LBFGS, f"opt_func: LBFGS computes the loss several times in a step; {ADAM}"),
        (partial(torch.optim.LBFGS, max_iter=3), "opt_func: LBFGS computes the loss"),
        (
            torch.optim.SparseAdam,
            f"opt_func: SparseAdam takes only sparse gradients, and those of Linear are dense; {ADAM}, or torch.optim.SGD",
        ),
    ],
)
def test_an_opt_func_that_is_not_an_optimizer_for_the_model(toy: DataBunch, opt_func: Any, message: str):
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
