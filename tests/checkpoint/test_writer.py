"""When a fit is kept, which checkpoints stay, and what happens when writing fails."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Net, seeded, toy_arrays
from onecycle import Callback, CheckpointConfig, DataBunch, Learner, accuracy
from onecycle.checkpoint import run_folder, writer
from onecycle.checkpoint.run_folder import RunFolder
from onecycle.checkpoint.writer import CheckpointWriter, Interval
from onecycle.errors import FileError, OutputError, SettingError

BATCHES = 12


def learner(engine: str = "fast", **options: Any) -> Learner:
    data = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=3)
    return Learner(data, seeded(Net()), metrics=accuracy, silent=True, engine=engine, **options)


def steps(run: Path) -> list[str]:
    """The checkpoints, the oldest first, their leading zeros left out."""
    return [name.lstrip("0") for name in reversed(RunFolder(run).names())]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("engine", ["eager", "fast"])
@pytest.mark.parametrize(
    ("every", "kept"),
    [
        ("1 epoch", ["12-epoch-1", "24-epoch-2", "36-epoch-3"]),
        ("2 epochs", ["24-epoch-2", "36-epoch-3"]),
        (5, ["5", "10", "15", "20", "25", "30", "35", "36-epoch-3"]),
        (24, ["24", "36-epoch-3"]),
        ("1 h", ["36-epoch-3"]),
    ],
)
def test_it_is_kept_as_often_as_was_said(tmp_path: Path, engine: str, every: Any, kept: list[str]):
    learner(engine).fit_one_cycle(3, 1e-2, checkpoint=CheckpointConfig(tmp_path, every, keep=100))
    assert steps(tmp_path) == kept


@pytest.mark.usefixtures("at_once")
def test_the_newest_stay_and_the_best(tmp_path: Path):
    learn = learner()
    learn.fit_one_cycle(6, 1e-1, checkpoint=CheckpointConfig(tmp_path, "1 epoch", keep=2, best="valid_loss"))
    losses = [loss for loss in learn.recorder.val_losses if loss is not None]
    best = losses.index(min(losses)) + 1
    expected = dict.fromkeys([best, 5, 6])
    assert steps(tmp_path) == [f"{BATCHES * epoch}-epoch-{epoch}" for epoch in sorted(expected)]
    assert RunFolder(tmp_path).read_best()["value"] == min(losses)


def test_a_best_that_is_nan_throughout_is_said(tmp_path: Path):
    learn = learner()
    learn.metrics = [lambda preds, targets: float("nan")]
    config = CheckpointConfig(tmp_path / "a", best="<lambda>", mode="max")
    with pytest.warns(
        UserWarning, match="CheckpointConfig's best='<lambda>' was NaN after each of 2 epochs, so that no"
    ):
        learn.fit(2, 1e-2, checkpoint=config)
    assert RunFolder(tmp_path / "a").owner_pid() is None
    learn.fit(0, 1e-2, checkpoint=CheckpointConfig(tmp_path / "b", best="<lambda>", mode="max"))


def test_an_unknown_best_is_refused_before_the_first_step(tmp_path: Path):
    learn = learner()
    with pytest.raises(SettingError, match="CheckpointConfig's monitor is 'acuracy'; .*did you mean \"accuracy\""):
        learn.fit(1, 1e-2, checkpoint=CheckpointConfig(tmp_path / "a", best="acuracy"))
    assert not learn.recorder.losses
    assert not (tmp_path / "a/.lock").exists()


@pytest.mark.parametrize("options", [{"keep": 0}, {"every": "never"}, {"keep": 1.5}])
def test_settings_that_cannot_be_used(options: dict[str, Any]):
    with pytest.raises(SettingError):
        CheckpointConfig("a", **options)


def test_the_steps_go_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A disk that takes until the third epoch for the first checkpoint."""
    write, go, begun = run_folder.write_folder, threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> None:
        begun.set()
        assert go.wait(60)
        write(*args, **options)

    class Releases(Callback):
        def on_epoch_begin(self, fit: Any) -> None:
            if fit.epoch == 2:
                assert begun.is_set()
                assert not RunFolder(tmp_path).names()
                go.set()

    monkeypatch.setattr(run_folder, "write_folder", slow)
    learner().fit_one_cycle(4, 1e-2, callbacks=[Releases()], checkpoint=CheckpointConfig(tmp_path, 3, keep=100))
    assert steps(tmp_path)[0] == "3"
    assert steps(tmp_path)[-1] == "48-epoch-4"


def test_what_fails_in_the_thread_is_an_error_of_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    learn = learner("eager")
    learn.fit(1, 1e-3, checkpoint=tmp_path / "a")
    names, fsync = RunFolder(tmp_path / "a").names(), os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    learn.extend(1)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"checkpoints/0000000\d+.*: cannot be written \(No space left on device\)"):
        learn.extend(3)
    monkeypatch.setattr(os, "fsync", fsync)
    assert set(names) < {*RunFolder(tmp_path / "a").names()}
    assert not list((tmp_path / "a/checkpoints").glob(".*"))
    assert not (tmp_path / "a/.lock").exists()


def test_one_copy_and_no_more_is_made_between_two_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What costs time (hashing, writing, describing the data) is the thread's."""
    threads = dict[str, set[str]]()

    def noting(module: Any, name: str) -> None:
        function = getattr(module, name)

        def noted(*args: Any, **options: Any) -> Any:
            threads.setdefault(name, set()).add(threading.current_thread().name.rpartition("_")[0])
            return function(*args, **options)

        monkeypatch.setattr(module, name, noted)

    noting(run_folder, "write_folder")
    noting(writer, "capture_state")
    noting(CheckpointWriter, "_write")
    learner().fit(2, 1e-3, checkpoint=tmp_path)
    assert threads == {
        "write_folder": {"onecycle-checkpoint"},
        "_write": {"onecycle-checkpoint"},
        "capture_state": {""},
    }


def test_the_thread_computes_nothing_with_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """OpenMP would give it threads of its own, and those of the training would sleep between kernels."""
    clone, threads = torch.Tensor.clone, set[str]()

    def noted(self: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        threads.add(threading.current_thread().name.rpartition("_")[0])
        return clone(self, *args, **options)

    monkeypatch.setattr(torch.Tensor, "clone", noted)
    learner().fit(2, 1e-3, checkpoint=tmp_path)
    assert "onecycle-checkpoint" not in threads


# --- intervals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "every"),
    [
        *((500, Interval(batches=500)), ("500", Interval(batches=500)), ("500 batches", Interval(batches=500))),
        *(("1 epoch", Interval(epochs=1)), ("2epochs", Interval(epochs=2)), (" 3 Epochs ", Interval(epochs=3))),
        *(("30 s", Interval(seconds=30)), ("1.5 min", Interval(seconds=90)), ("2 hours", Interval(seconds=7200))),
        *(("10 seconds", Interval(seconds=10)), ("1 step", Interval(batches=1)), ("5 mins", Interval(seconds=300))),
        *(("10 minutes", Interval(seconds=600)), ("3 batches", Interval(batches=3)), ("1 h", Interval(seconds=3600))),
    ],
)
def test_intervals_that_are_understood(given: Any, every: Interval):
    assert Interval.parse(given) == every


@pytest.mark.parametrize("given", ["", "epoch", "0 epochs", "1.5 epochs", "-1 s", "3 weeks", "s", "0", "1e3 s"])
def test_intervals_that_are_refused(given: str):
    with pytest.raises(SettingError) as caught:
        Interval.parse(given)
    assert str(caught.value).startswith(f"every is {given!r}; expected a number of batches, or text such as")


@pytest.mark.parametrize("given", [0, -1, 1.5, None, True])
def test_an_interval_is_a_positive_integer(given: Any):
    with pytest.raises(SettingError, match="every is"):
        Interval.parse(given)


# --- what is not ours -------------------------------------------------------------------------------------------------


def test_overwrite_leaves_what_others_wrote(tmp_path: Path):
    theirs = tmp_path / "checkpoints" / "2023-11-02 other framework"
    theirs.mkdir(parents=True)
    for path in (theirs / "model.pt", tmp_path / "checkpoints" / "1000.pt"):
        path.write_text("weights")
    learner().fit(1, 1e-2, checkpoint=tmp_path)
    before = steps(tmp_path)
    backup = tmp_path / "checkpoints" / f"{RunFolder(tmp_path).names()[0]}-my-backup"
    (tmp_path / "checkpoints" / RunFolder(tmp_path).names()[0]).rename(backup)
    with pytest.warns(
        UserWarning, match=r"-my-backup, 1000\.pt, 2023-11-02 other framework: not of onecycle; left alone"
    ):
        learner().fit(1, 1e-2, checkpoint=CheckpointConfig(tmp_path, overwrite=True))
    assert steps(tmp_path) == before
    assert (theirs / "model.pt").read_text() == (tmp_path / "checkpoints" / "1000.pt").read_text() == "weights"
    assert (backup / "manifest.json").is_file()


def test_what_has_the_name_of_a_checkpoint_but_is_none_is_refused(tmp_path: Path):
    theirs = tmp_path / "checkpoints" / "1700000000"  # a time
    theirs.mkdir(parents=True)
    (theirs / "model.pt").write_text("weights")
    for _ in range(2):
        with pytest.raises(OutputError, match=r"1700000000 exists and is not a fit that onecycle wrote"):
            learner().fit(1, 1e-2, checkpoint=CheckpointConfig(tmp_path, overwrite=True))
    assert [path.name for path in tmp_path.rglob("*")] == ["checkpoints", "1700000000", "model.pt"]


@pytest.mark.usefixtures("at_once")
def test_an_older_checkpoint_with_notes_in_it_stays(tmp_path: Path):
    class Notes(Callback):
        def on_epoch_end(self, fit: Any) -> None:
            if fit.epoch == 1:
                (tmp_path / "checkpoints" / RunFolder(tmp_path).names()[0] / "notes.txt").write_text("good")

    with pytest.warns(UserWarning, match=r"holds 'notes\.txt', which onecycle did not write; move it away; it stays"):
        learner("eager", callbacks=[Notes()]).fit(3, 1e-2, checkpoint=CheckpointConfig(tmp_path, keep=1))
    assert steps(tmp_path) == ["12-epoch-1", "36-epoch-3"]


def test_a_link_in_the_place_of_the_checkpoints(tmp_path: Path):
    (tmp_path / "photos" / "0000000012").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to("../photos")
    with pytest.raises(OutputError, match=r"run/checkpoints: a link to \.\./photos, a folder; expected a folder"):
        learner().fit(1, 1e-2, checkpoint=CheckpointConfig(tmp_path / "run", overwrite=True))
    with pytest.raises(FileError, match=r"holds no checkpoints \(.*checkpoints: a link to .*, which is not followed\)"):
        learner().resume(tmp_path / "run")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["0000000012"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]


def test_a_link_in_the_place_of_the_lock(tmp_path: Path):
    learner().fit(1, 1e-2, checkpoint=tmp_path / "run")
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "run" / ".lock").symlink_to("../thesis.txt")
    with pytest.raises(OutputError, match=r"\.lock: cannot be written \(a link to \.\./thesis\.txt"):
        learner().resume(tmp_path / "run")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
