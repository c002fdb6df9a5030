"""`train --checkpoint-every`, `train --resume` and `runs`, with real processes and signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.conftest import leave_out_pictures
from conftest import Net, seeded, toy_arrays
from onecycle import CheckpointConfig, DataBunch, Learner
from onecycle.checkpoint.run_folder import RunFolder
from onecycle.cli.app import run
from onecycle.core.archives import read_folder, write_folder
from onecycle.core.record import Record
from onecycle.errors import SettingError
from onecycle.tables.cache import sizes

QUICK = ["--epochs", "2", "--lr", "0.01", "--bs", "16", "--device", "cpu", "--model", "mlp:8"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    leave_out_pictures(monkeypatch)
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 4)).astype(np.float32)
    np.savez("rows.npz", x=x, y=x[:, :3].argmax(1))
    return tmp_path


def numbers(folder: str) -> tuple[object, ...]:
    record = Record.load(Path(folder) / "record.json")
    return record.batch_losses, record.lrs, record.val_losses, record.metrics


def killed_at_once(folder: str, *more: str) -> None:
    """What `train` leaves in the folder if it is killed before its first step."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
        monkeypatch.setattr("onecycle.cli.train.build_learner", kill)
        if not (pid := os.fork()):
            run(["train", "rows.npz", *QUICK, "--out", folder, *more])
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("more", [[], ["--checkpoint-every", "1 epoch"]])
@pytest.mark.parametrize("by", ["the same command", "--resume", "Python"])
def test_a_training_that_was_killed_before_its_first_checkpoint_begins_anew(
    more: list[str], by: str, capsys: pytest.CaptureFixture[str]
):
    assert run(["train", "rows.npz", *QUICK, "--out", "whole", *more]) == 0
    killed_at_once("a", *more)
    Path("a/.losses.png.0123456789abcdef.tmp").touch()
    assert run(["runs", ".", "--json"]) == 0
    states = {run["run"]: run["state"] for run in json.loads(capsys.readouterr().out.splitlines()[-1])}
    assert states == {
        "whole": "finished",
        "a": "killed before its first checkpoint, can be resumed: it begins anew",
    }
    if by == "Python":
        with pytest.raises(SettingError, match="holds a run of `onecycle train`"):
            in_python("a")
        return
    assert (
        run(["train", "--resume", "a"] if by == "--resume" else ["train", "rows.npz", *QUICK, "--out", "a", *more]) == 0
    )
    assert numbers("a") == numbers("whole")
    for path in (Path("a"), Path("a/checkpoints")):
        found, expected = (
            {entry.name for entry in folder.glob("*")} for folder in (path, "whole" / path.relative_to("a"))
        )
        assert found == expected


def test_two_trainings_of_one_folder(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """The second is refused before it reads anything, with the process id of the first; so is a report."""
    with RunFolder("a").locked():
        (Path("a") / "record.json").write_text("{}")
        before = sorted(Path("a").rglob("*"))
        for command in (["train", "nothing.npz"], ["train", "rows.npz", "--force"]):
            assert run([*command, "--out", "a"]) == 2
        monkeypatch.setattr("onecycle.cli.run_files.load_settings", lambda run: pytest.fail("it was read"))
        assert sorted(Path("a").rglob("*")) == before
    assert capsys.readouterr().err.count(f"a: in use by process {os.getpid()}; wait until it ends") == 1


def test_a_training_that_lost_its_end_is_resumed(capsys: pytest.CaptureFixture[str]):
    assert run(["train", "rows.npz", *QUICK, "--out", "a", "--checkpoint-every", "1 epoch"]) == 0
    shutil.copytree("a", "b")
    newest, oldest = RunFolder("b").names()
    shutil.rmtree(Path("b/checkpoints") / newest)
    for file in ("record.json", "report.html"):
        (Path("b") / file).unlink()
    shutil.rmtree("b/model")
    capsys.readouterr()
    assert run(["runs", ".", "--json"]) == 0
    states = {run["run"]: (run["state"], run["epochs_done"]) for run in json.loads(capsys.readouterr().out)}
    assert states == {"a": ("finished", 2), "b": ("stopped (killed), can be resumed", 1)}
    assert run(["train", "--resume", "b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["stopped"] is None
    assert "b/report.html" in found["files"]
    assert numbers("b") == numbers("a")
    assert oldest in RunFolder("b").names()


def test_a_run_with_settings_of_the_first_format_is_resumed():
    """Its settings had no TableSpec, but all that concerns the data in a group of its own."""
    options = [*QUICK, "--split", "random", "--valid", "0.3", "--task", "classes"]
    assert run(["train", "rows.npz", *options, "--out", "a", "--checkpoint-every", "1 epoch"]) == 0
    shutil.copytree("a", "b")
    shutil.rmtree(Path("b/checkpoints") / RunFolder("b").names()[0])
    state, _ = read_folder(Path("b/settings"), "settings")
    values = dict(state["settings"])
    table = values.pop("table")
    data = {name: values.pop(name) for name in ("source", "image_size", "memory_limit", "bs", "device")}
    data |= {name: table[name] for name in ("task", "split", "valid", "seed")}
    data |= {"target": table["target"] or None, "drop": table["drop"] or None, "kinds": [*table["kinds"].items()]}
    write_folder(Path("b/settings"), "settings", {}, {**state, "settings": {**values, "data": data}}, replace=True)
    assert run(["train", "--resume", "b"]) == 0
    assert numbers("b") == numbers("a")


def test_the_memory_limit_as_it_was_resolved_is_the_runs(monkeypatch: pytest.MonkeyPatch):
    """A table that is in memory in one process is in memory in the next, though less is free there."""
    assert run(["train", "rows.npz", *QUICK, "--out", "a", "--checkpoint-every", "1 epoch"]) == 0
    limit = read_folder(Path("a/settings"), "settings")[0]["settings"]["memory_limit"]
    assert int(limit) > 2**20
    shutil.copytree("a", "b")
    shutil.rmtree(Path("b/checkpoints") / RunFolder("b").names()[0])
    monkeypatch.setattr(sizes, "_available_memory", lambda: 1_000)
    assert run(["train", "--resume", "b"]) == 0
    assert numbers("b") == numbers("a")


def test_the_settings_are_the_runs(capsys: pytest.CaptureFixture[str]):
    assert run(["train", "rows.npz", *QUICK, "--out", "a", "--checkpoint-every", "5"]) == 0
    capsys.readouterr()
    assert run(["train", "rows.npz", "--resume", "a"]) == 2
    assert capsys.readouterr().err == "error: --resume takes its settings from the run; leave out SOURCE\n"
    assert run(["train", "--resume", "a", "--lr", "0.1"]) == 2
    assert capsys.readouterr().err == "error: --resume takes its settings from the run; leave out --lr\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train"], "SOURCE is missing, which says what is trained on: mnist, or the path of a file or folder"),
        (["train", "--resume", "nothing"], "nothing: holds no training to resume; expected the folder of one that had"),
        (
            ["train", "rows.npz", "--checkpoint-every", "often"],
            "every is 'often'; expected a number of batches, or text",
        ),
        (["runs", "nothing"], "nothing: no such folder; expected one with the folders that `onecycle train` writes"),
    ],
)
def test_what_cannot_be_done_is_said(args: list[str], message: str, capsys: pytest.CaptureFixture[str], place: Path):
    assert run(args) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"error: {message}")
    assert [path.name for path in place.iterdir()] == ["rows.npz"]


def test_data_that_changed_are_refused(capsys: pytest.CaptureFixture[str]):
    assert run(["train", "rows.npz", *QUICK, "--out", "a", "--checkpoint-every", "1 epoch"]) == 0
    with np.load("rows.npz") as found:
        x, y = found["x"], found["y"]
    np.savez("rows.npz", x=x + 1, y=y)
    capsys.readouterr()
    assert run(["train", "--resume", "a"]) == 2
    assert "a belongs to a different fit: training data: sha256" in capsys.readouterr().err


def test_runs_are_shown(capsys: pytest.CaptureFixture[str]):
    Path("runs").mkdir()
    assert run(["runs"]) == 0
    assert capsys.readouterr().out == "no runs are in runs\n"
    assert run(["train", "rows.npz", *QUICK, "--out", "runs/plain"]) == 0
    assert run(["train", "rows.npz", *QUICK, "--out", "runs/kept", "--checkpoint-every", "1 epoch"]) == 0
    capsys.readouterr()
    assert run(["runs"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "state", "epochs", "batches", "valid_loss", "metrics", "changed"]
    assert [row.split()[:5] for row in rows] == [
        ["runs/kept", "finished", "2", "of", "2"],
        ["runs/plain", "finished", "2", "of", "2"],
    ]


def test_a_loss_that_became_nan_is_told(capsys: pytest.CaptureFixture[str]):
    train = ["--epochs", "3", "--bs", "16", "--device", "cpu", "--model", "mlp:8", "--checkpoint-every", "2"]
    assert run(["train", "rows.npz", *train, "--lr", "1e19", "--out", "a"]) == 1
    capsys.readouterr()
    assert run(["runs", ".", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["state"].startswith("failed (the loss became nan at step ")
    assert found["state"].endswith("), can be resumed")


def test_a_run_that_cannot_be_read_is_listed(capsys: pytest.CaptureFixture[str]):
    assert run(["train", "rows.npz", *QUICK, "--out", "plain"]) == 0
    assert run(["train", "rows.npz", *QUICK, "--out", "kept", "--checkpoint-every", "1 epoch"]) == 0
    for path in (Path("plain/record.json"), *Path("kept/checkpoints").rglob("state.json")):
        path.write_bytes(path.read_bytes()[:-9])
    Path("kept/record.json").unlink()
    capsys.readouterr()
    assert run(["runs", "."]) == 0
    out = capsys.readouterr().out
    assert "plain  its record.json cannot be read " in out
    assert "kept   its checkpoints cannot be read " in out


def test_predicting_with_a_training_that_has_no_checkpoint(capsys: pytest.CaptureFixture[str]):
    options = [*QUICK[4:], "--lr", "1e38", "--out", "a", "--checkpoint-every", "1 epoch"]
    assert run(["train", "rows.npz", *options]) != 0
    assert not Path("a").exists()  # the training failed before its first checkpoint: nothing is worth keeping
    killed_at_once("a")
    assert run(["predict", "a", "rows.npz"]) == 2
    assert "a: its training is not finished; resume it: onecycle train --resume a" in capsys.readouterr().err


def test_predicting_with_a_training_that_is_not_finished(capsys: pytest.CaptureFixture[str]):
    assert run(["train", "rows.npz", *QUICK, "--out", "a", "--checkpoint-every", "1 epoch"]) == 0
    shutil.rmtree("a/model")
    Path("a/record.json").unlink()
    capsys.readouterr()
    assert run(["predict", "a", "rows.npz"]) == 2
    expected = "error: a: its training is not finished; resume it: onecycle train --resume a\n"
    assert capsys.readouterr().err == expected


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_keeps_the_training(number: signal.Signals, code: int):
    train = [*QUICK[2:], "--epochs", "2000", "--out", "a", "--checkpoint-every", "1 h"]
    with Path("err").open("w") as err:  # a pipe that nobody reads would be full one day
        process = subprocess.Popen([sys.executable, "-m", "onecycle", "train", "rows.npz", *train], stderr=err)
    while not Path("a/settings").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    assert RunFolder("a").owner_pid() == process.pid
    busy = subprocess.run(
        [sys.executable, "-m", "onecycle", "train", "--resume", "a"], capture_output=True, text=True, check=False
    )
    assert busy.returncode == 2
    process.send_signal(signal.SIGUSR1)
    while not RunFolder("a").names():
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait() == code, Path("err").read_text()
    assert "Traceback" not in Path("err").read_text()
    assert RunFolder("a").owner_pid() is None
    state = RunFolder("a").read_latest_state()
    assert state is not None
    assert state["ended"] == {143: "terminated", 130: "interrupted"}[code]


def test_a_lock_of_a_dead_process_is_free():
    pid = os.fork() if hasattr(os, "fork") else pytest.skip("forks")
    if not pid:
        lock = RunFolder("a").lock()
        assert lock
        os._exit(0)
    os.waitpid(pid, 0)
    assert (Path("a") / ".lock").exists()
    assert RunFolder("a").owner_pid() is None
    RunFolder("a").lock().release(remove=True)


def test_a_busy_run_keeps_its_settings(capsys: pytest.CaptureFixture[str]):
    assert run(["train", "rows.npz", *QUICK, "--out", "a", "--checkpoint-every", "1 epoch"]) == 0
    before = (Path("a/settings/state.json")).read_bytes()
    lock = RunFolder("a").lock()
    for more in ([], ["--checkpoint-every", "5"]):
        assert run(["train", "rows.npz", *QUICK[2:], "--epochs", "1", "--out", "a", "--force", *more]) == 2
        assert "a: in use by process" in capsys.readouterr().err
    assert Path("a/settings/state.json").read_bytes() == before
    assert len(RunFolder("a").names()) == 2
    RunFolder("a").release(lock)


def test_force_replaces_what_was_kept(capsys: pytest.CaptureFixture[str]):
    assert run(["train", "rows.npz", *QUICK, "--out", "a", "--checkpoint-every", "1 epoch"]) == 0
    assert run(["train", "rows.npz", *QUICK, "--out", "a", "--force"]) == 0
    assert not Path("a/settings").exists()
    assert not Path("a/checkpoints").exists()
    capsys.readouterr()
    assert run(["train", "--resume", "a"]) == 2
    assert "a: holds no training to resume" in capsys.readouterr().err


def in_python(folder: str, **options: Any) -> None:
    """A fit that is kept in the folder, made in Python."""
    data = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=3)
    learn = Learner(data, seeded(Net()), silent=True, engine="eager")
    learn.fit_one_cycle(1, 1e-2, checkpoint=CheckpointConfig(folder, **options))


@pytest.mark.parametrize("more", [[], ["--force"], ["--force", "--checkpoint-every", "1 epoch"]])
def test_a_run_made_in_python_is_never_replaced(more: list[str], capsys: pytest.CaptureFixture[str]):
    in_python("a")
    before = {path: path.read_bytes() for path in Path("a").rglob("*") if path.is_file()}
    assert run(["train", "rows.npz", *QUICK, "--out", "a", *more]) == 2
    message = "error: a holds a run made in Python, whose checkpoints would be lost; give another --out\n"
    assert capsys.readouterr().err == message
    assert {path: path.read_bytes() for path in Path("a").rglob("*") if path.is_file()} == before


def test_a_run_made_in_python_is_resumed_there(capsys: pytest.CaptureFixture[str]):
    in_python("a")
    assert run(["train", "--resume", "a"]) == 2
    assert capsys.readouterr().err == (
        "error: a: made in Python, so its model and settings are not known here; go on with learn.resume('a'), by a "
        "learner made as the one of the run\n"
    )


def test_predicting_with_a_run_made_in_python(capsys: pytest.CaptureFixture[str]):
    in_python("a")
    assert run(["predict", "a", "rows.npz"]) == 2
    message = "error: a: made in Python, and has no bundle; learn.export('a/model') makes one\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("more", [[], ["--checkpoint-every", "1 epoch"]])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_fit_in_python_does_not_write_into_a_run_of_the_command_line(more: list[str], overwrite: bool):
    assert run(["train", "rows.npz", *QUICK, "--out", "a", *more]) == 0
    Path("a-2").mkdir()
    before = set(Path("a").rglob("*"))
    message = r"^a holds a run of `onecycle train`, whose files .*; give another folder, such as 'a-3'$"
    with pytest.raises(SettingError, match=message):
        in_python("a", overwrite=overwrite)
    assert set(Path("a").rglob("*")) == before
    in_python("a-3")
    in_python("a-3", overwrite=True)  # its own


def test_a_run_is_resumed_from_another_folder(
    capsys: pytest.CaptureFixture[str], place: Path, monkeypatch: pytest.MonkeyPatch
):
    assert run(["train", "rows.npz", *QUICK, "--out", "a", "--checkpoint-every", "1 epoch"]) == 0
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    assert run(["train", "--resume", "../a"]) == 0
    (place / "rows.npz").unlink()
    capsys.readouterr()
    assert run(["train", "--resume", "../a"]) == 2
    assert capsys.readouterr().err == (
        f"error: {place / 'rows.npz'}: no such file or folder; ../a was trained on it: put it back\n"
    )
