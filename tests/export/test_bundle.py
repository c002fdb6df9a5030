"""Bundles: of the library's own models and of any other, read in a process that has never seen their class."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Net, WithNorms, seeded, toy_arrays
from onecycle import MLP, DataBunch, Learner, accuracy, f1_score, load_learner, load_predictor
from onecycle.errors import DataError, FileError, ModelError
from onecycle.export.traced_model import TracedModel

pytestmark = pytest.mark.slow


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 8, 2, bias=False), nn.GroupNorm(2, 8), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x.view(x.size(0), 1, 4, 5)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 8)
        self.position = nn.Parameter(torch.randn(5, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.up(x.reshape(-1, 5, 4)) + self.position).mean(1))


class Tokens(nn.Module):
    """Whole numbers in; a constant, a buffer that is not saved, tied weights."""

    steps: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(10, 6), nn.Linear(6, 10, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("steps", torch.arange(20.0) / 20, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(self.steps * torch.tensor([2.0]), 0)
        return self.out((self.embed(x) * weights[:, None]).sum(1))[:, :4]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, num_layers=2, bidirectional=True, dropout=0.1)
        self.gru, self.rnn = nn.GRU(12, 5, batch_first=True), nn.RNN(5, 4, bias=False, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.gru(self.lstm(x.reshape(-1, 5, 4).transpose(0, 1))[0].transpose(0, 1))[0]
        return self.rnn(x.transpose(0, 1))[0][-1]


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(20, 4)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return self.lin(x) + bias[:, None] / torch.full((4,), 2.0, device=x.device)


def learner(model: nn.Module, x: torch.Tensor | None = None) -> Learner:
    rows, y = toy_arrays()
    rows = rows if x is None else x
    data = DataBunch.create((rows, y), (rows, y), bs=16, seed=3, device="cpu")
    learn = Learner(data, model, metrics=accuracy, silent=True)
    learn.fit(1, 1e-2)
    return learn


@pytest.mark.parametrize(
    "make", [Net, lambda: nn.Sequential(nn.Linear(20, 8), WithNormsFor8()), Convolutions, Attention, Recurrent]
)
def test_a_program_gives_the_models_numbers(here: Path, make):
    learn = learner(make())
    loaded = load_predictor(learn.export("b"), device="cpu")
    assert isinstance(loaded.model, TracedModel)
    x = learn.data.valid_ds.tensors[0]
    for rows in (x, x[:1], x[:3], x[:177]):
        assert torch.allclose(loaded.get_preds(rows)[0], learn.get_preds(rows)[0], rtol=0, atol=1e-6)
    assert set(loaded.model.state_dict()) == set(learn.model.state_dict())
    assert {n for n, _ in loaded.model.named_parameters()} == {n for n, _ in learn.model.named_parameters()}


class WithNormsFor8(WithNorms):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.LayerNorm(18), nn.Linear(18, 4, bias=False))


def test_whole_numbers_constants_and_tied_weights(here: Path):
    tokens = torch.arange(4000).reshape(200, 20) * 7 % 10
    learn = learner(Tokens(), tokens)
    loaded = load_predictor(learn.export("b"))
    assert (here / "b/constants.safetensors").exists()
    assert torch.allclose(loaded.get_preds(tokens)[0], learn.get_preds(tokens)[0], rtol=0, atol=1e-6)


def test_several_inputs(here: Path):
    x, y = toy_arrays()
    data = DataBunch.create((x, torch.arange(200), y), (x, torch.arange(200), y), bs=16, device="cpu")
    learn = Learner(data, Two(), silent=True)
    loaded = load_predictor(learn.export("b"), device="cpu")
    assert torch.allclose(loaded.get_preds(data.valid_dl)[0], learn.get_preds()[0], rtol=0, atol=1e-6)


def test_in_a_process_that_has_never_seen_the_class(here: Path):
    learn = learner(Convolutions())
    learn.export("b")
    x = learn.data.valid_ds.tensors[0]
    np.save("x.npy", x.numpy())
    code = (
        "import json, sys, numpy as np, onecycle; b = onecycle.load_predictor('b', device='cpu'); x = np.load('x.npy');"
        "print(json.dumps([b.get_preds(x)[0].tolist(), b.predict_rows(x), b.classes,"
        "[m for m in ('torch._dynamo', 'torch._export.serde.serialize', 'sympy') if m in sys.modules]]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    outputs, answers, classes, imported = json.loads(out)
    expected = learn.get_preds()[0]
    assert np.allclose(outputs, expected, rtol=0, atol=1e-6)
    assert answers == expected.argmax(1).tolist()
    assert classes == [0, 1, 2, 3]
    assert imported == []  # reading a program needs nothing of torch.export


def test_a_bundle_answers_rows_as_the_learner_does(here: Path):
    learn = learner(MLP(20, 8, 4))
    x = learn.data.valid_ds.tensors[0]
    bundle = load_predictor(learn.export("b"), device="cpu")
    assert repr(bundle) == "Predictor(MLP, classes=[0, 1, 2, 3])"
    assert bundle.predict_rows(x[:5]) == [learn.predict(row)[0] for row in x[:5]]
    assert bundle.predict_rows(x[:1].numpy()) == [learn.predict(x[0])[0]]
    with pytest.raises(DataError, match="cannot be predicted"):
        bundle.predict_rows(3)
    values = Learner(DataBunch.create((x, x.sum(1)), bs=16), seeded(Net(outputs=1)), silent=True)
    answers = load_predictor(values.export("v"), device="cpu").predict_rows(x[:3])
    assert answers == pytest.approx([values.predict(row)[0] for row in x[:3]], abs=1e-6)


def test_answers_for_the_rows_of_a_table(here: Path):
    rows = [{"size": float(i), "city": "Oslo" if i % 2 else "Rome", "price": 2.0 * i} for i in range(60)]
    learn = Learner(DataBunch.from_table(rows, "price", seed=0, device="cpu"), silent=True)
    answers = load_predictor(learn.export("b"), device="cpu").predict_rows(rows[:4])
    assert answers == pytest.approx([learn.predict(row)[0] for row in rows[:4]], rel=1e-5)


def test_a_program_is_exported_again_as_it_is(here: Path):
    learn = learner(Attention())
    learn.export("a")
    load_learner("a", device="cpu").export("b")
    for name in ("model.safetensors", "state.json"):
        a, b = ((here / folder / name).read_bytes() for folder in "ab")
        assert a == b or json.loads(a)["program"] == json.loads(b)["program"]


def test_without_data_rows_are_made_from_their_shape(here: Path):
    learn = learner(seeded(Net()))
    learn.export("a")
    load_learner("a", Net, device="cpu").export("b")
    x = learn.data.valid_ds.tensors[0]
    assert torch.equal(
        load_predictor("a", device="cpu").get_preds(x)[0], load_predictor("b", device="cpu").get_preds(x)[0]
    )


def test_a_program_cannot_be_trained(here: Path, toy: DataBunch):
    learner(Net()).export("b")
    loaded = load_learner("b", data=toy)
    loaded.silent = True
    with pytest.raises(
        ModelError, match=r"b: holds the model as a program, which predicts; to train it, give its class"
    ):
        loaded.fit(1, 1e-2)
    trained = load_learner("b", Net, data=toy)
    trained.silent = True
    trained.fit(1, 1e-2)


def test_the_model_is_left_as_it_was(here: Path):
    learn = learner(Convolutions())
    learn.model.train()
    learn.model.head.eval()
    before = {name: tensor.clone() for name, tensor in learn.model.state_dict().items()}
    random = torch.get_rng_state()
    learn.export("b")
    assert learn.model.training
    assert not learn.model.head.training
    assert all(torch.equal(before[name], tensor) for name, tensor in learn.model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


def test_metrics_come_back_by_name(tmp_path: Path):
    def its_own(preds: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (preds.argmax(1) == targets).float().mean() * 2

    data = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=3)
    learn = Learner(data, seeded(MLP(20, 8, 4)), metrics=[accuracy, its_own, f1_score], silent=True)
    learn.fit(1, 1e-2)
    other = load_learner(learn.export(tmp_path / "a.onecycle"), data=data)
    assert other.metrics == [accuracy, f1_score]
    loss, accurate, _, f1 = learn.validate()
    assert other.validate() == pytest.approx([loss, accurate, f1])
    its_own.__name__ = "accuracy"
    learn.metrics = [its_own]
    assert load_learner(learn.export(tmp_path / "b.onecycle"), data=data).metrics == []


def toy_learner(data: DataBunch, model: nn.Module | None = None) -> Learner:
    return Learner(data, model or seeded(Net()), metrics=accuracy, silent=True)


def test_a_bundle_of_our_own_model_needs_no_class(toy: DataBunch, here: Path):
    learn = toy_learner(toy, MLP(20, 8, 4))
    learn.fit(1, 1e-2)
    folder = learn.export("b")
    assert not [path for path in folder.iterdir() if path.suffix not in (".safetensors", ".json")]
    x = toy.valid_ds.tensors[0]
    np.save("x.npy", x.numpy())
    code = """
        import numpy as np, onecycle, json
        learn = onecycle.load_learner("b")
        x = np.load("x.npy")
        print(json.dumps([learn.get_preds(x)[0].tolist(), learn.predict(x[0])[0], learn.classes]))
    """
    script = "\n".join(line.strip() for line in code.splitlines())
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    probs, first, classes = json.loads(out)
    expected, targets = learn.get_preds()
    assert np.allclose(probs, expected, atol=1e-6)
    assert np.allclose(expected.sum(1), 1, atol=1e-5)
    assert torch.equal(targets, toy.valid_ds.tensors[1])
    assert first == int(expected[0].argmax())
    assert classes == [0, 1, 2, 3]


def test_a_bundle_of_any_other_model_takes_its_class(toy: DataBunch, here: Path):
    learn = toy_learner(toy)
    learn.fit(1, 1e-2)
    learn.export("b")
    for model in (None, Net, Net()):  # without it, as a program
        loaded = load_learner("b", model=model)
        assert (type(loaded.model) is Net) == (model is not None)
        assert torch.equal(loaded.get_preds(toy.valid_dl)[0], learn.get_preds()[0])


def test_a_bundle_predicts_and_with_data_trains(toy: DataBunch, here: Path):
    learn = toy_learner(toy)
    learn.export("b")
    loaded = load_learner("b", Net)
    with pytest.raises(DataError, match=r"loaded without data; give it some: load_learner\(path, data=...\)"):
        loaded.fit(1, 1e-2)
    with pytest.raises(DataError, match=r"row has shape \(19,\); expected one row of shape \(20,\)$"):
        loaded.predict(np.zeros(19, dtype=np.float32))
    with pytest.raises(ModelError, match=r"x.x has 19 columns"):
        loaded.get_preds(np.zeros((3, 19), dtype=np.float32))
    trained = load_learner("b", Net, data=toy)
    trained.silent = True
    trained.fit(1, 1e-2)
    assert trained.validate()[0] < learn.validate()[0]


def test_a_damaged_bundle(toy: DataBunch, here: Path):
    folder = toy_learner(toy, MLP(20, 8, 4)).export("b")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(FileError, match=r"model.safetensors: damaged"):
        load_learner("b")
    with pytest.raises(FileError, match="nowhere: no such folder; expected a bundle"):
        load_learner("nowhere")
