"""What a trained model predicts, and in which words."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import Net, seeded
from onecycle import DataBunch, Learner, accuracy
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
