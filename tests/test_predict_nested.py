"""Models of several inputs and several outputs, and data sets that are read only in order: all that trains predicts."""

import io
import math
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset

from conftest import Net, seeded, toy_arrays
from onecycle import ClassificationInterpretation, DataBunch, Learner, accuracy, epoch_metric, load_predictor
from onecycle.errors import DataError, ModelError, NonFiniteLossError

X, Y = toy_arrays(120)
EXTRA = torch.from_numpy(np.random.RandomState(3).normal(size=(120, 3)).astype(np.float32))
IDS = torch.arange(120) * 7 % 5
Pair = namedtuple("Pair", "logits aux")


@dataclass
class Output:
    logits: Tensor
    aux: Tensor
    past: Any = None


class Two(nn.Module):
    """Returns what `make` makes of two tensors."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.body, self.aux, self.make = Net(), nn.Linear(20, 3), make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.body(x), self.aux(x))


def first(outputs: Any) -> Tensor:
    if isinstance(outputs, dict):
        return outputs["logits"]
    return outputs.logits if hasattr(outputs, "logits") else outputs[0]


def loss(outputs: Any, targets: Tensor) -> Tensor:
    return F.cross_entropy(first(outputs), targets)


def trained(model: nn.Module, data: DataBunch, loss_func: Any = None, **options: Any) -> Learner:
    learn = Learner(data, model, loss_func, silent=True, **options)
    learn.fit(1, 1e-2)
    return learn


def arrays(*inputs: Tensor) -> DataBunch:
    parts = [*(inputs or (X,)), Y]
    return DataBunch.create([part[:80] for part in parts], [part[80:] for part in parts], bs=16, device="cpu", seed=1)


def reloaded(learn: Learner) -> Any:
    file = io.BytesIO()
    learn.export(file)
    file.seek(0)
    return load_predictor(file, device="cpu")


MAKERS: dict[str, Any] = {
    "tuple": (lambda a, b: (a, b), lambda out: out),
    "dict": (lambda a, b: {"logits": a, "aux": [b]}, lambda out: (out["logits"], out["aux"][0])),
    "namedtuple": (Pair, lambda out: out),
    "dataclass": (Output, lambda out: (out.logits, out.aux)),
    "one": (lambda a, b: (a,), lambda out: (out[0], None)),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_part_of_the_output_is_returned_in_order(kind: str):
    make, parts = MAKERS[kind]
    learn = trained(
        Two(make), arrays(), loss, metrics=[lambda out, y: accuracy(first(out), y), epoch_metric(lambda out, y: len(y))]
    )
    expected = learn.model(X[80:])
    for which in ("valid", X[80:], X[80:].tolist(), DataLoader(Rows(range(80, 120)), 7)):
        preds, targets = learn.get_preds(which)
        assert type(preds) is type(expected)
        for found, wanted in zip(parts(preds), parts(expected), strict=True):
            assert wanted is None or torch.allclose(found, wanted, atol=1e-6)
        assert targets is None or torch.equal(targets, Y[80:])
    scores = learn.validate()
    assert scores[0] == pytest.approx(loss(expected, Y[80:]).item(), abs=1e-6)
    assert scores[1:] == [pytest.approx(accuracy(first(expected), Y[80:]).item()), 40]
    with pytest.raises(DataError, match="an interpretation needs one"):
        ClassificationInterpretation.from_learner(learn)
    if kind == "tuple":
        for ask in (lambda: learn.predict(X[0]), lambda: learn.predict_rows(X[:3])):
            with pytest.raises(
                ModelError,
                match=r"the model returns 2 outputs \(\[0\] \(\d, 4\), \[1\] \(\d, 3\)\), and it is not known which "
                "is the prediction; get_preds returns all of them, or let forward return one in eval mode",
            ):
                ask()
        return
    name, index, logits = learn.predict(X[90])
    assert torch.allclose(logits, first(expected)[10], atol=1e-6)
    assert name == index.item() == first(expected)[10].argmax().item()
    assert learn.predict_rows(X[80:]) == first(expected).argmax(1).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_a_bundle_of_several_outputs(kind: str):
    make, parts = MAKERS[kind]
    learn = trained(Two(make), arrays(), loss)
    loaded = reloaded(learn)
    found, expected = loaded.get_preds(X[80:])[0], learn.get_preds()[0]
    found_parts = found.values() if isinstance(found, dict) else found
    found_parts = [part[0] if isinstance(part, list) else part for part in found_parts]
    for part, wanted in zip(found_parts, parts(expected), strict=False):
        assert wanted is None or torch.allclose(part, wanted, atol=1e-6)
    if kind != "tuple":
        assert loaded.predict_rows(X[:9]) == learn.predict_rows(X[:9])
    again = io.BytesIO()
    loaded.export(again)
    again.seek(0)
    assert torch.equal(
        first_tensor(load_predictor(again, device="cpu").get_preds(X)[0]), first_tensor(loaded.get_preds(X)[0])
    )


def first_tensor(outputs: Any) -> Tensor:
    return next(iter(outputs.values())) if isinstance(outputs, dict) else outputs[0]


@pytest.mark.slow
def test_onnx_of_several_outputs_and_inputs():
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    file = io.BytesIO()
    learn = trained(Two(lambda a, b: {"logits": a, "aux": [b]}), arrays(), loss)
    learn.to_onnx(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_outputs()] == ["logits", "aux_0"]
    logits, aux = session.run(None, {session.get_inputs()[0].name: X[:7].numpy()})
    expected = learn.model(X[:7])
    assert np.allclose(logits, expected["logits"].detach(), atol=1e-5)
    assert np.allclose(aux, expected["aux"][0].detach(), atol=1e-5)
    file = io.BytesIO()
    learn = trained(Inputs(), arrays(X, IDS))
    learn.to_onnx(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, (X[:7].numpy(), IDS[:7].numpy()), strict=True)))
    assert np.allclose(found, learn.model(X[:7], IDS[:7]).detach(), atol=1e-5)


def test_a_regression_of_several_outputs():
    y = X[:, 0] * 2
    data = DataBunch.create((X[:80], y[:80]), (X[80:], y[80:]), bs=16, device="cpu", seed=1)

    class MeanAndSpread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(20, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.lin(x)[:, 0], self.lin(x).exp()

    learn = trained(MeanAndSpread(), data, lambda out, y: F.mse_loss(out[0], y))
    mean, spread = learn.model(X[3:4])
    value, tensors, _ = learn.predict(X[3])
    assert value == pytest.approx((mean.item(), spread.item()))
    assert torch.allclose(tensors[1], spread[0])
    assert learn.predict_rows(X[3:5])[0] == pytest.approx(value)


def test_a_tables_units_are_not_guessed():
    torch.manual_seed(1)  # the weight is positive
    table = pd.DataFrame({"a": [i % 53 / 2 for i in range(100)], "y": [5.0 * (i % 53) + 100 for i in range(100)]})
    data = DataBunch.from_table(table, "y", device="cpu", seed=1)

    class Named(nn.Module):
        def __init__(self, several: bool) -> None:
            super().__init__()
            self.lin, self.several = nn.Linear(1, 1), several

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            mean = self.lin(x)
            return {"mean": mean, "spread": mean.exp()} if self.several else {"mean": mean}

    learn = trained(Named(True), data, lambda out, y: F.mse_loss(out["mean"].flatten(), y.flatten()))
    with pytest.warns(
        UserWarning, match="returns a dict, whose parts are as in training: standardised, not in the units of y"
    ):
        learn.get_preds()
    with pytest.raises(ModelError, match="it is not known which is the prediction"):
        learn.predict({"a": 3})
    learn = trained(Named(False), data, lambda out, y: F.mse_loss(out["mean"].flatten(), y.flatten()))
    assert learn.target is not None
    encoded = learn.model(data.valid_ds.tensors[0])["mean"]
    with pytest.warns(UserWarning, match="standardised"):
        assert torch.allclose(learn.get_preds()[0]["mean"], encoded)
    assert learn.predict({"a": 1.5})[0] == pytest.approx(learn.predict_rows(table[3:4])[0])
    assert 0 < learn.predict({"a": 50})[0] < 1000


@pytest.mark.parametrize("outputs", ["state", "first"])
def test_outputs_that_do_not_have_the_rows_first(outputs: str):
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 6, 2, batch_first=True), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Any:
            out, state = self.lstm(x.reshape(-1, 5, 4))
            logits = self.head(out)
            return (logits[:, -1], state) if outputs == "state" else logits.transpose(0, 1)

    def last(out: Any, y: Tensor) -> Tensor:
        return F.cross_entropy(out[0] if outputs == "state" else out[-1], y)

    learn = trained(Recurrent(), arrays(), last, engine="eager")
    part = r"output\[1\]\[0\] has shape \(2, 16, 6\)" if outputs == "state" else r"output has shape \(5, 16, 4\)"
    with pytest.raises(
        DataError,
        match=rf"the model's {part} for 16 rows; expected the rows as its first dimension; let forward return",
    ):
        learn.get_preds()
    if outputs == "first":
        with pytest.raises(ModelError, match="the model returns 5 rows for one row; use get_preds"):
            learn.predict(X[0])


def test_a_single_number_for_a_batch_is_no_prediction():
    learn = trained(Two(lambda a, b: a.mean()), arrays(), lambda out, y: out)
    with pytest.raises(DataError, match="Two returns a single number for a batch; expected an output a row"):
        learn.predict(X[0])
    learn = trained(Two(lambda a, b: (a, b.mean())), arrays(), loss)
    logits, aux = learn.get_preds(X[:3])[0]
    assert (logits.shape, aux.shape) == ((3, 4), (1,))


# --- several inputs ---------------------------------------------------------------------------------------------------


class Inputs(nn.Module):
    """Numbers, and the index of an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.embed = Net(), nn.Embedding(5, 4)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.body(x) + self.embed(ids)


class OfDict(Inputs):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch["x"], batch["id"])


class Rows(Dataset[Any]):
    def __init__(self, rows: range, kind: str = "x") -> None:
        self.rows, self.kind = rows, kind

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        i = self.rows[i]
        x = {"x": X[i], "dict": {"x": X[i], "id": IDS[i]}, "pair": (X[i], IDS[i])}[self.kind]
        return x, Y[i]


def of_loaders(kind: str) -> DataBunch:
    loaders = [DataLoader(Rows(rows, kind), 16) for rows in (range(80), range(80, 120))]
    return DataBunch(*loaders, device="cpu", seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["arrays", "pair", "dict"])
def test_several_inputs_are_predicted_as_they_are_trained(kind: str):
    data = arrays(X, IDS) if kind == "arrays" else of_loaders(kind)
    learn = trained(OfDict() if kind == "dict" else Inputs(), data)
    expected = learn.get_preds()[0][3]
    loaded = reloaded(learn)
    rows: list[Any] = [(X[83], IDS[83]), [X[83].numpy(), 83 * 7 % 5], (X[83].tolist(), IDS[83].item())]
    many: Any = (X[80:], IDS[80:])
    if kind == "dict":
        rows, many = [{"id": ids, "x": x} for x, ids in rows], {"id": IDS[80:], "x": X[80:].numpy()}
    for predictor in (learn, loaded):
        for row in rows:
            assert torch.allclose(predictor.predict(row)[2], expected, atol=1e-6)
        assert torch.allclose(predictor.get_preds(many)[0], learn.get_preds()[0], atol=1e-6)
        assert predictor.predict_rows(many)[3] == expected.argmax().item()
    wanted = "a dict with x, id" if kind == "dict" else "a tuple of 2 inputs"
    wrong: list[Any] = [X[0], (X[0],), (X[0], 1, 2), {"x": X[0]}, {"a": X[0], "b": 1}]
    for row in wrong:
        with pytest.raises(DataError, match=f"row is a .*; expected {wanted}, nested as the model was trained with"):
            loaded.predict(row)
    if kind != "dict":
        with pytest.raises(DataError, match="x: its parts have 3 and 2 rows; expected equal numbers"):
            learn.get_preds((X[:3], IDS[:2]))
        with pytest.raises(DataError, match="x has no rows"):
            learn.get_preds((X[:0], IDS[:0]))


def test_inputs_in_another_order_are_not_reshaped():
    learn = trained(Crossed(), arrays(X, X.reshape(-1, 4, 5)))
    assert len(learn.predict((X[0], X[0].reshape(4, 5)))[2]) == 4
    with pytest.raises(DataError, match=r"row has shape \(4, 5\); expected one row of shape \(20,\)"):
        learn.predict((X[0].reshape(4, 5), X[0]))


class Crossed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Net()

    def forward(self, flat: Tensor, square: Tensor) -> Tensor:
        return self.body(flat) + self.body(square.flatten(1))


def test_dict_inputs_in_bfloat16():
    learn = trained(OfDict(), of_loaders("dict"), precision="bf16")
    probs = learn.get_preds()[0]
    assert probs.dtype is torch.float32
    assert torch.allclose(learn.predict({"x": X[80], "id": IDS[80]})[2], probs[0], atol=1e-2)


def test_whole_numbers_are_pixels_where_the_model_was_trained_with_pixels():
    images = (torch.rand(120, 1, 4, 5) * 255).to(torch.uint8)
    data = DataBunch.create((images, EXTRA, Y), (images, EXTRA, Y), bs=16, pixel_scale=255, device="cpu", seed=1)

    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.extra = Net(), nn.Linear(3, 4)

        def forward(self, x: Tensor, extra: Tensor) -> Tensor:
            return self.body(x.flatten(1)) + self.extra(extra)

    learn = trained(Images(), data)
    expected = learn.get_preds()[0][5]
    for image in (images[5], images[5].long(), images[5].tolist(), images[5] / 255):
        assert torch.allclose(learn.predict((image, EXTRA[5]))[2], expected, atol=1e-6)
    single = trained(
        nn.Sequential(nn.Flatten(), Net()), DataBunch.create((images, Y), bs=16, pixel_scale=255, device="cpu")
    )
    assert torch.allclose(single.predict(images[5].long())[2], single.predict(images[5])[2])


# --- rows that are several, none, or something else -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (X[:0], "x has no rows; expected at least one"),
        ([], "x has no rows; expected at least one"),
        ((X[:3], Y[:3]), "x is a tuple; expected x alone, without targets"),
        ({"x": X[:3]}, "x is a dict; expected x alone, without targets"),
        ((row for row in X), "of type generator, cannot be predicted; expected the name of a set, a loader, an array"),
        (pd.DataFrame(X[:3].numpy()), "of type DataFrame, cannot be predicted"),
        ([[1.0] * 20, [1.0] * 19], "x has rows of different lengths"),
    ],
)
def test_rows_that_are_none(rows: Any, message: str):
    learn = Learner(arrays(), seeded(Net()), silent=True)
    with pytest.raises(DataError, match=message):
        learn.get_preds(rows)


def test_one_row_in_many_forms():
    learn = Learner(arrays(), seeded(Net()), silent=True)
    expected = learn.get_preds(X[:1])[0][0]
    series = pd.Series(X[0].numpy())
    for row in (X[0], X[:1], X[0].tolist(), X[0].double(), series, X[0].reshape(4, 5), X[0].requires_grad_()):
        assert torch.allclose(learn.predict(row)[2], expected, atol=1e-6)


def test_one_output_for_two_classes_is_not_always_the_first():
    y = (X[:, 0] > 0).long()
    data = DataBunch.create((X, y), (X, y), bs=16, device="cpu", seed=1)

    class BCEWithLogits(nn.Module):
        def forward(self, out: Tensor, y: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(out[:, 0], y.float())

    learn = Learner(data, nn.Linear(20, 1), BCEWithLogits(), silent=True)
    learn.fit(20, 1e-1)
    probs = learn.get_preds()[0][:, 0]
    assert learn.predict_rows(X) == (probs > 0.5).long().tolist()
    assert {learn.predict(row)[0] for row in X[:20]} == {0, 1}
    learn.loss_func = lambda out, y: F.soft_margin_loss(out[:, 0], y * 2.0 - 1)
    with pytest.raises(
        ModelError, match=r"returns one number for 2 classes, and its loss \(<lambda>\) does not say what"
    ):
        learn.predict(X[0])


def test_a_class_for_each_pixel():
    images, labels = torch.rand(40, 1, 4, 5), torch.arange(40 * 20).reshape(40, 4, 5) % 3
    data = DataBunch.create((images, labels), (images, labels), bs=8, device="cpu", seed=1)
    learn = trained(nn.Conv2d(1, 3, 1), data)
    expected = learn.model(images).softmax(1)
    assert torch.allclose(learn.get_preds()[0], expected, atol=1e-6)
    names, index, probs = learn.predict(images[2])
    assert names == index.tolist() == expected[2].argmax(0).tolist()
    assert torch.allclose(probs, expected[2], atol=1e-6)
    learn.loss_func = lambda out, y: F.cross_entropy(out, y)
    with pytest.raises(ModelError, match="does not say which dimension has the classes; get_preds returns the numbers"):
        learn.predict(images[2])


# --- NaN --------------------------------------------------------------------------------------------------------------


def test_a_model_that_a_loss_of_nan_ruined_says_so(here: Any):
    learn = Learner(arrays(), seeded(Net()), silent=True)
    with pytest.raises(NonFiniteLossError):
        learn.fit(3, 1e30)
    asked: list[Any] = [
        lambda: learn.predict(X[0]),
        lambda: learn.predict_rows(X[:3]),
        learn.get_preds,
        lambda: learn.export("b"),
        lambda: learn.export(io.BytesIO()),
        lambda: learn.to_onnx("a.onnx"),
        lambda: ClassificationInterpretation.from_learner(learn),
    ]
    for ask in asked:
        with pytest.raises(
            ModelError,
            match=r"the model's weights contain NaN \(first in lin1.weight: \d+ of 160 numbers\), .*; load earlier weights",
        ):
            ask()
    assert not [*here.iterdir()]
    with pytest.warns(UserWarning, match=r"models/a: the weights that are saved contain NaN \(first in lin1.weight"):
        learn.save("a")


def test_an_output_of_nan_is_no_class():
    class Overflows(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 0 + x[:, :1].log()

    learn = Learner(arrays(), seeded(Overflows()), silent=True)
    rows = X[(X[:, 0] < 0).nonzero()[:3, 0]]
    assert learn.get_preds(rows)[0].isnan().all()
    for ask in (lambda: learn.predict(rows[0]), lambda: learn.predict_rows(rows)):
        with pytest.raises(
            ModelError, match="the model's output contains NaN, which is no class, though its weights do"
        ):
            ask()
    with pytest.raises(DataError, match="the model's output contains NaN, which is no class"):
        ClassificationInterpretation.from_learner(learn)
    assert learn.predict(X[0].abs())[0] in range(4)


def test_weights_of_infinity_are_not_nan():
    learn = Learner(arrays(), seeded(Net()), silent=True)
    with torch.no_grad():
        learn.model.lin2.bias[:2] = torch.tensor([math.inf, -math.inf])  # whose sum is NaN
    with pytest.raises(ModelError, match="the model's output contains NaN"):
        learn.predict(X[0])


# --- data sets that are read in order ---------------------------------------------------------------------------------


class Stream(IterableDataset[Any]):
    def __init__(self, rows: range, floats: bool = False) -> None:
        self.rows, self.floats = rows, floats

    def __iter__(self) -> Any:
        return iter([(X[i], X[i, 0] if self.floats else Y[i]) for i in self.rows])

    def __len__(self) -> int:
        return len(self.rows)


class Once(Stream):
    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        raise AssertionError("a row was taken")


@pytest.mark.parametrize("make", ["create", "loaders"])
def test_an_iterable_data_set_trains_and_predicts(make: str):
    train, valid = Stream(range(80)), Stream(range(80, 120))
    if make == "create":
        data = DataBunch.create(train, valid, bs=16, device="cpu", seed=1)
    else:
        data = DataBunch(DataLoader(train, 16), DataLoader(valid, 16), device="cpu", seed=1)
    learn = trained(seeded(Net()), data, metrics=accuracy)
    same = trained(
        seeded(Net()),
        DataBunch(DataLoader(Rows(range(80)), 16), DataLoader(Rows(range(80, 120)), 16), device="cpu", seed=1),
    )
    assert learn.recorder.losses == same.recorder.losses
    assert not data.is_regression()
    probs, targets = learn.get_preds()
    assert torch.allclose(probs, learn.model(X[80:]).softmax(1), atol=1e-6)
    assert torch.equal(targets, Y[80:])
    assert torch.equal(learn.get_preds("train")[1], Y[:80])
    assert learn.validate()[1] == pytest.approx(accuracy(probs, targets).item())
    assert learn.predict(X[80])[0] == probs[0].argmax()
    assert len(learn.lr_find(num_it=5).lrs) == 5
    with pytest.raises(DataError, match="row is a tuple; expected x alone"):
        learn.predict((X[0], Y[0]))


def test_an_iterable_data_set_of_values():
    data = DataBunch.create(Stream(range(80), floats=True), bs=16, device="cpu", seed=1)
    assert data.is_regression()
    trained(Net(outputs=1), data)


def test_an_iterable_data_set_that_does_not_say_enough():
    class NoLength(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(Stream(range(80)))

    with pytest.raises(DataError, match="train has no length; expected a data set with __len__$"):
        DataBunch.create(NoLength(), bs=16)
    with pytest.raises(DataError, match="Once can be read only once, .*; give the learner a loss_func"):
        Learner(DataBunch(DataLoader(Once(range(80)), 16)), Net(), silent=True)
