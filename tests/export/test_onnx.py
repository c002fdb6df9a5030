"""ONNX: written only where onnxruntime gives the model's numbers."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import Net, WithNorms, seeded
from onecycle import MLP, DataBunch, Learner, load_learner
from onecycle.errors import ModelError, OutputError, SettingError


def run(path: Path, rows: torch.Tensor) -> np.ndarray[Any, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    return session.run(None, {entry.name: rows.numpy()})[0]


def test_without_the_extra(toy: DataBunch, here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingError, match=r'writing ONNX needs .*; install them with pip install "onecycle\[onnx\]"'):
        Learner(toy, seeded(Net()), silent=True).to_onnx("a.onnx")
    assert not Path("a.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [Net, lambda: MLP(20, 8, 4), lambda: nn.Sequential(nn.Linear(20, 8), WithNorms(), nn.Linear(2, 4))]
)
def test_onnx_gives_the_models_numbers_for_any_number_of_rows(toy: DataBunch, here: Path, make):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    learn = Learner(toy, make(), silent=True)
    learn.fit(1, 1e-2)
    path = learn.to_onnx("deep/a.onnx")
    assert [entry.name for entry in Path("deep").iterdir()] == ["a.onnx"]
    x = toy.valid_ds.tensors[0]
    learn.model.eval()
    for count in (1, 2, 50):
        assert np.allclose(run(path, x[:count]), learn.model(x[:count]).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_what_a_file_of_onnx_says_and_where_it_goes(toy: DataBunch, here: Path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    learn = Learner(toy, seeded(Net()), silent=True)
    path = learn.to_onnx("a.onnx")
    assert {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props} == {
        "loss": "CrossEntropyLoss",
        "classes": [0, 1, 2, 3],
    }
    with pytest.raises(OutputError, match=r"a.onnx exists; give another name"):
        learn.to_onnx("a.onnx")
    learn.to_onnx("a.onnx", overwrite=True)
    learn.export("b")
    loaded = load_learner("b", device="cpu")  # a program: it has no class
    x = toy.valid_ds.tensors[0]
    assert np.allclose(run(loaded.to_onnx("b.onnx"), x), run(path, x), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_other_numbers_are_not_written(toy: DataBunch, here: Path, monkeypatch: pytest.MonkeyPatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    real = onnxruntime.InferenceSession.run
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda *args: [real(*args)[0] + 1e-3])
    with pytest.raises(
        ModelError, match=r"the ONNX of Net and the model differ by up to 1.0e-03 .*; nothing was written"
    ):
        Learner(toy, seeded(Net()), silent=True).to_onnx("a.onnx")
    assert not list(here.iterdir())


@pytest.mark.slow
def test_columns_of_a_table_and_weights_that_are_transposed(here: Path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(4, 20).t())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.weight

    table = np.random.RandomState(0).normal(size=(64, 21)).astype(np.float32)
    x, y = table[:, :-1], np.arange(64) % 4
    for model in (Net(), Transposed()):
        learn = Learner(DataBunch.create((x, y), bs=16, device="cpu"), model, silent=True)
        path = learn.to_onnx("a.onnx", overwrite=True)
        rows = torch.from_numpy(x[:5].copy())
        assert np.allclose(run(path, rows), learn.model(rows).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_model_without_onnx_is_explained_in_a_line_without_colours(toy: DataBunch, here: Path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    class Singular(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.linalg.svdvals(x[:, None])

    with pytest.raises(ModelError) as raised:
        Learner(toy, Singular(), silent=True).to_onnx("a.onnx")
    message = str(raised.value)
    assert "torch.onnx fails (" in message
    assert message.endswith("write it with other operators, or as a bundle (learn.export), which needs no ONNX")
    assert "svd" in message
    assert not {"\x1b", "\n"} & {*message}
    assert not list(here.iterdir())
