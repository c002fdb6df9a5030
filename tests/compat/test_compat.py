"""What an earlier onecycle wrote loads for ever, and gives the numbers that it gave then."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from compat.make import Foreign, Stops, learners, rows_of
from onecycle import Record, load_learner, load_predictor

VERSIONS = sorted(path for path in Path(__file__).parent.iterdir() if (path / "expected.json").exists())


def test_there_are_some():
    assert "0.1.0" in [folder.name for folder in VERSIONS]


@pytest.mark.parametrize("suffix", ["onecycle", "zip"])
@pytest.mark.parametrize("name", ["mlp", "foreign", "table"])
@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_a_bundle_predicts_what_it_did(folder: Path, name: str, suffix: str):
    expected = json.loads((folder / "expected.json").read_text())[name]
    found = load_predictor(folder / f"{name}.{suffix}", device="cpu").get_preds(rows_of(name))[0]
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)
    if name == "foreign":
        assert load_learner(folder / f"{name}.{suffix}", Foreign, device="cpu").model.norm.eps == 1e-5


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_a_checkpoint_goes_on_as_it_did(folder: Path, here: Path):
    shutil.copytree(folder / "models", here / "models")
    learn = learners()["mlp"]
    learn.load("saved")
    expected = json.loads((folder / "expected.json").read_text())
    assert torch.allclose(learn.get_preds(rows_of("mlp"))[0], torch.tensor(expected["mlp"]), rtol=1e-5, atol=1e-6)
    learn.fit(1, 1e-3)
    assert np.allclose(learn.recorder.record.batch_losses, expected["after one more epoch"], rtol=1e-4)


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda folder: folder.name)
def test_a_run_is_resumed_as_it_was(folder: Path, tmp_path: Path):
    shutil.copytree(folder / "run", tmp_path / "run")
    learn = learners()["mlp"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # another torch, other threads: the last bits may differ
        learn.resume(tmp_path / "run", callbacks=[Stops()])
    expected = json.loads((folder / "expected.json").read_text())["resumed"]
    assert len(expected) == 16
    assert np.allclose(learn.recorder.record.batch_losses, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "folder", [folder for folder in VERSIONS if (folder / "record.json").exists()], ids=lambda folder: folder.name
)
def test_a_record_reads_as_it_did(folder: Path):
    record = Record.load(folder / "record.json")
    assert record.batch_losses == json.loads((folder / "expected.json").read_text())["losses"]
    assert record.rows()
