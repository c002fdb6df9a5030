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
