"""The folder of a run: its checkpoints, its lock and its failure."""

import os
from pathlib import Path

import pytest
import torch

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.errors import FileError, SettingError


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    for number in (1, 3, 2):
        folder.write(f"{number:010d}", {"model": {"w": torch.full((2,), float(number))}}, {"best": {"name": number}})
    return folder


def damage(run: RunFolder, name: str, file: str) -> None:
    path = run.checkpoints / name / file
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_the_newest_checkpoint_comes_first(run: RunFolder):
    assert run.names() == ["0000000003", "0000000002", "0000000001"]
    name, (state, tensors) = run.read_latest()
    assert (name, state, tensors["model"]["w"].tolist()) == ("0000000003", {"best": {"name": 3}}, [3, 3])
    assert run.read_best() == {"name": 3}


def test_a_damaged_checkpoint_is_passed_over_and_hidden(run: RunFolder):
    damage(run, "0000000003", "model.safetensors")
    with pytest.warns(UserWarning, match="0000000003/model.safetensors: damaged .* the next older checkpoint is used"):
        name, (_, tensors) = run.read_latest()
    assert (name, tensors["model"]["w"].tolist()) == ("0000000002", [2, 2])
    run.quarantine_newer(name)
    assert run.names() == ["0000000002", "0000000001"]
    assert (run.checkpoints / ".0000000003.damaged").is_dir()


def test_the_state_is_read_without_the_tensors(run: RunFolder):
    damage(run, "0000000003", "model.safetensors")
    assert run.read_latest_state() == {"best": {"name": 3}}
    damage(run, "0000000003", "state.json")
    assert run.read_latest_state() == {"best": {"name": 2}}


def test_no_checkpoint_is_intact(run: RunFolder, tmp_path: Path):
    run.prune({"0000000001"})
    damage(run, "0000000001", "manifest.json")
    with (
        pytest.warns(UserWarning, match="not a manifest"),
        pytest.raises(FileError, match="holds no checkpoint that can be used; expected some in"),
    ):
        run.read_latest()
    assert run.read_best() == {"name": None, "value": None}
    assert RunFolder(tmp_path / "nothing").names() == []


def test_the_lock_names_its_owner_and_clears_leftovers(run: RunFolder):
    (run.checkpoints / ".0000000001.0123456789abcdef.tmp").mkdir()
    (run.path / ".losses.png.0123456789abcdef.tmp").write_bytes(b"half")
    (run.checkpoints / ".0000000001.damaged").mkdir()
    (run.checkpoints / ".vim.tmp").mkdir()  # of another program
    lock = run.lock()
    assert {path.name for path in run.checkpoints.glob(".*")} == {".0000000001.damaged", ".vim.tmp"}
    assert {path.name for path in run.path.iterdir()} == {".lock", "checkpoints"}
    assert run.owner_pid() == os.getpid()
    with pytest.raises(SettingError, match=rf"in use by process {os.getpid()}; wait until it ends"):
        run.lock()
    run.release(lock)
    assert run.owner_pid() is None


def test_a_failure_is_written_and_deleted(run: RunFolder):
    assert run.read_failure() is None
    run.write_failure(SettingError("lr is 0"))
    assert run.read_failure() == "lr is 0"
    run.write_failure(ZeroDivisionError("oops"))
    assert run.read_failure() == "ZeroDivisionError: oops"
    run.delete_failure()
    assert run.read_failure() is None
