"""The learner's own questions: predict, get_preds, validate, on each kind of data."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import Net, seeded, toy_arrays
from onecycle import Callback, DataBunch, Learner, accuracy
from onecycle.errors import DataError


@pytest.fixture
def learn(toy: DataBunch) -> Learner:
    learner = Learner(toy, seeded(Net()), metrics=accuracy, silent=True)
    learner.fit_one_cycle(3, 1e-2)
    return learner


def test_predictions_are_probabilities_in_the_data_sets_order(learn: Learner):
    probs, targets = learn.get_preds()
    x, y = learn.data.valid_ds.tensors
    with torch.no_grad():
        assert torch.allclose(probs, F.softmax(learn.model(x), -1), atol=1e-6)
    assert torch.equal(targets, y)
    assert len(learn.get_preds("train")[0]) == 200
    assert torch.equal(learn.get_preds("train")[1], learn.data.train_ds.tensors[1])


def test_predictions_of_rows(learn: Learner):
    x = learn.data.valid_ds.tensors[0]
    expected = learn.get_preds()[0]
    for rows in (x, x.numpy()):
        probs, targets = learn.get_preds(rows)
        assert torch.allclose(probs, expected, atol=1e-6)
        assert targets is None


def test_predicting_one_row(learn: Learner):
    x = learn.data.valid_ds.tensors[0]
    for row in (x[3], x[3].numpy(), x[3].tolist()):
        name, number, probs = learn.predict(row)
        assert name == number.item() == probs.argmax().item()
        assert probs.sum().item() == pytest.approx(1)
    with pytest.raises(DataError, match=r"row has shape \(50, 20\); expected one row of shape \(20,\)"):
        learn.predict(x)
    with pytest.raises(DataError, match="row contains nan"):
        learn.predict(np.full(20, np.nan))


def test_classes_have_the_data_sets_names():
    class Named(torch.utils.data.Dataset):
        classes = ("cat", "dog")

        def __len__(self):
            return 40

        def __getitem__(self, i):
            return torch.full((20,), float(i % 2)), i % 2

    learner = Learner(DataBunch.create(Named(), Named(), bs=8), seeded(Net(outputs=2)), metrics=accuracy, silent=True)
    learner.fit_one_cycle(20, 1e-2)
    assert learner.predict(torch.ones(20))[0] == "dog"


@pytest.mark.parametrize(
    ("loss_func", "expected"),
    [
        (nn.BCEWithLogitsLoss(), torch.sigmoid),
        (F.binary_cross_entropy_with_logits, torch.sigmoid),
        (nn.NLLLoss(), torch.exp),
        (nn.MSELoss(), lambda x: x),
        (nn.CrossEntropyLoss(label_smoothing=0.1), lambda x: x.softmax(-1)),
    ],
)
def test_the_loss_decides_what_predictions_are(toy: DataBunch, loss_func, expected):
    learner = Learner(toy, seeded(Net()), loss_func=loss_func, silent=True)
    x = toy.valid_ds.tensors[0]
    with torch.no_grad():
        assert torch.allclose(learner.get_preds(x)[0], expected(learner.model.eval()(x)), atol=1e-6)


def test_the_record_says_what_the_fit_was_made_of(learn: Learner):
    settings = learn.recorder.record.settings
    assert [settings[key] for key in ("optimizer", "loss", "model")] == ["AdamW", "CrossEntropyLoss", "Net"]
    assert (settings["parameters"], settings["seed"], settings["bs"], settings["moms"]) == (204, 3, 16, [0.95, 0.85])
    coupled = Learner(learn.data, seeded(Net()), true_wd=False, silent=True)
    coupled.fit(1, 1e-3)
    assert coupled.recorder.record.settings["optimizer"] == "Adam"


def test_validating_another_loader(learn: Learner):
    assert learn.validate("train") == pytest.approx(learn.validate(learn.data.fix_dl), rel=1e-6)
    assert learn.validate("train")[1] > 0.8


def test_batch_sizes_weigh_the_averages():
    x, y = toy_arrays(10)
    data = DataBunch.create((x, y), (x, y), bs=5, val_bs=7)
    learner = Learner(data, seeded(Net()), metrics=lambda out, target: torch.tensor(float(len(target))), silent=True)
    assert learner.validate()[1] == pytest.approx((7 * 7 + 3 * 3) / 10)


def test_metrics_may_give_plain_numbers(toy: DataBunch):
    def rows(preds, targets):
        return len(targets)

    learner = Learner(toy, Net(), metrics=[rows], silent=True)
    learner.fit(1, 1e-3)
    assert learner.recorder.record.metric_names == ["rows"]
    assert learner.recorder.metrics[0][0] == pytest.approx((16 * 48 + 2 * 2) / 50)


def test_after_a_stopped_fit_the_batches_go_on_with_the_next_order(toy: DataBunch):
    class Sees(Callback):
        def __init__(self, stop_after: int | None = None) -> None:
            self.rows, self.stop_after = list[float](), stop_after

        def on_batch_begin(self, fit: Any) -> None:
            self.rows += fit.xb[:, 0].tolist()

        def on_batch_end(self, fit: Any) -> None:
            if fit.iteration == self.stop_after:
                fit.stop("enough")

    batches = len(toy.train_dl)
    whole = Sees()
    Learner(toy, Net(), silent=True).fit(4, 1e-3, callbacks=whole)
    orders = [whole.rows[i * batches * 16 : (i + 1) * batches * 16] for i in range(4)]
    for stop_after, epochs in ((batches - 1, 1), (batches, 2), (2 * batches - 1, 2), (None, 3)):
        learn, then = Learner(toy, Net(), silent=True), Sees()
        learn.fit(3, 1e-3, callbacks=Sees(stop_after))
        assert learn.epochs_trained == epochs
        learn.fit(1, 1e-3, callbacks=then)
        assert then.rows == orders[epochs]
        learn.fit(0, 1e-3)
        assert learn.epochs_trained == epochs + 1
