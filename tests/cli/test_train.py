"""`onecycle train` and `lr-find` on a small stand-in for MNIST; test_cli.py trains on the real one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import toy_arrays
from onecycle import Callback, DataBunch, Learner, Record, load_learner
from onecycle.cli import train as train_command
from onecycle.cli.app import run

pytestmark = pytest.mark.slow

FILES = ["model", "record.json", "lr_find.png", "lr.png", "losses.png", "metrics.png", "confusion.png", "report.html"]


@pytest.fixture(autouse=True)
def small_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    def mnist(bs: int, seed: int, device: torch.device) -> DataBunch:
        data = DataBunch.create(
            toy_arrays(1000, 784, 10), toy_arrays(200, 784, 10, seed=1), bs=bs, seed=seed, device=device
        )
        data.pixel_scale = 256.0
        return data

    monkeypatch.setattr("onecycle.cli.setup.mnist", mnist)


def test_the_threads_that_are_asked_for(here: Path) -> None:
    before = torch.get_num_threads()
    assert run(["train", "mnist", "--threads", "3", "--lr", "0.01"]) == 0
    assert Record.load("runs/mnist/record.json").settings["threads"] == 3
    assert torch.get_num_threads() == before
    report = Path("runs/mnist/report.html").read_text()
    assert "<dt>threads</dt><dd>3</dd>" in report


def test_the_main_job(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert run(["train", "mnist", "--hidden", "30,20"]) == 0
    assert torch.equal(torch.get_rng_state(), state)
    out, err = capsys.readouterr()
    assert out.split() == [f"runs/mnist/{name}" for name in FILES]
    assert sorted(path.name for path in Path("runs/mnist").iterdir()) == sorted(FILES)
    for line in (
        "learning rate, valley:",
        "learning rate: ",
        "epoch        train_loss   valid_loss   accuracy",
        "validation: loss 0.",
    ):
        assert line in err
    record = Record.load("runs/mnist/record.json")
    assert record.lr_curve is not None
    assert record.mistakes is not None
    assert record.settings["max_lr"] == record.lr_curve["suggestion"]
    assert record.settings["lr_choice"] == "suggested by the finder"
    assert (record.settings["data"], record.settings["hidden"], record.settings["seed"]) == ("mnist", [30, 20], 42)
    assert record.settings["threads"] == 1
    for name in FILES:
        if name.endswith(".png"):
            assert Path("runs/mnist", name).read_bytes().startswith(b"\x89PNG")
    x, y = toy_arrays(200, 784, 10, seed=1)
    probs, _ = load_learner("runs/mnist/model").get_preds(x)
    assert (probs.argmax(1) == y).float().mean().item() == pytest.approx(record.metrics[-1][0])


def test_same_seed_same_run(here: Path) -> None:
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run(["train", "mnist", "--lr", "0.01", "--seed", seed, "--out", out]) == 0
    a, b, c = (Record.load(f"{out}/record.json").batch_losses for out in "abc")
    assert a == b
    assert a != c


def test_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "mnist", "--lr", "0.01", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["lr"] == 0.01
    assert found["accuracy"] > 0.5
    assert found["stopped"] is None
    assert "runs/mnist/lr_find.png" not in found["files"]


def test_an_existing_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "mnist", "--out", "out"]
    (here / "out").mkdir()
    assert run(train) == 0  # empty: fine
    (here / "out" / "notes.txt").write_text("mine")
    capsys.readouterr()
    assert run(train) == 2
    assert capsys.readouterr().err.startswith("error: out is not empty; give another --out, or --force")
    assert run([*train, "--force", "--lr", "0.01", "--epochs", "0"]) == 0
    assert (here / "out" / "notes.txt").read_text() == "mine"
    assert not (here / "out" / "lr_find.png").exists()  # would be the older run's
    assert Record.load(here / "out" / "record.json").epochs == []


@pytest.mark.parametrize("out", ["file/below", "/dev/null/x"])
def test_a_folder_that_cannot_be_written_is_found_before_training(
    here: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    (here / "file").write_text("")
    assert run(["train", "mnist", "--out", out]) == 1
    text, err = capsys.readouterr()
    assert not text
    assert err.startswith(f"error: {out}: cannot be written (")
    assert "epoch" not in err


def test_a_file_where_the_folder_would_be(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "file").write_text("mine")
    assert run(["train", "mnist", "--out", "file", "--force"]) == 1
    assert capsys.readouterr().err == "error: file is a file; expected a folder: give another --out\n"
    assert (here / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["model", "record.json", "lr.png"])
def test_force_does_not_replace_what_no_run_wrote(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (here / "out" / name).mkdir(parents=True)
    (here / "out" / name / "mine").write_text("")
    assert run(["train", "mnist", "--out", "out", "--force"]) == 1
    expected = "exists and is not a bundle that onecycle wrote" if name == "model" else "is a folder; expected"
    assert capsys.readouterr().err.startswith(f"error: out/{name} {expected}")
    assert (here / "out" / name / "mine").exists()


@pytest.mark.parametrize(
    "name", ["report.html", "record.json", "metrics.png", "settings/mine.txt", "checkpoints/1700000000/a"]
)
def test_force_keeps_the_files_of_other_programs(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = here / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert run(["train", "mnist", "--out", "out", "--force"]) == 1 + (name.startswith("checkpoints"))
    assert capsys.readouterr().err.startswith("error: out")
    assert [path.read_text() for path in here.rglob("*") if path.is_file()] == ["mine"]


def test_a_loss_that_turns_nan_is_a_failed_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "mnist", "--lr", "1e12"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: the loss became nan at step")
    assert last.endswith("expected a finite number: try --lr auto, or a lower --lr")
    assert not any(here.iterdir())  # runs/mnist was made for nothing
    (here / "old").mkdir()
    assert run(["train", "mnist", "--lr", "1e12", "--out", "old"]) == 1
    assert (here / "old").is_dir()  # not this run's


@pytest.mark.parametrize("sent", [KeyboardInterrupt, OSError])
def test_a_run_that_ends_early_leaves_no_empty_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, sent: type[BaseException]
) -> None:
    def ended(*_: Any) -> None:
        raise sent

    monkeypatch.setattr("onecycle.cli.train.build_learner", ended)
    assert run(["train", "mnist", "--out", "deep/er"]) in (1, 130)
    assert not any(here.iterdir())


def test_ctrl_c_in_the_first_epoch(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class CtrlC(Callback):
        def on_batch_end(self, fit: Any) -> None:
            if fit.iteration == 3:
                fit.stop("interrupted")

    def learner(*args: Any) -> Learner:
        learn = make(*args)
        learn.callbacks.append(CtrlC())
        return learn

    make = train_command.build_learner
    monkeypatch.setattr(train_command, "build_learner", learner)
    assert run(["train", "mnist", "--lr", "0.01", "--epochs", "50", "--out", "out", "--json"]) == 130
    found = json.loads(capsys.readouterr().out)
    record = Record.load("out/record.json")
    assert (record.stopped, record.epochs) == ("interrupted", [])
    assert record.settings["valid_loss when stopped"] == found["valid_loss"]
    assert record.settings["accuracy when stopped"] == found["accuracy"]
    report = (here / "out" / "report.html").read_text()
    assert "valid_loss when stopped" in report
    assert f"{found['accuracy']:.4f}" in report
    assert "highest learning rate so far" in report
    assert "peak learning rate" not in report
    assert ">Validation<" not in report


def test_report_is_written_anew(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "mnist", "--lr", "0.01", "--out", "out"]) == 0
    report = here / "out" / "report.html"
    report.unlink()
    capsys.readouterr()
    assert run(["report", "out"]) == 0
    assert capsys.readouterr().out == "out/report.html\n"
    assert "accuracy" in report.read_text()


def test_lr_find(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lr-find", "mnist", "--out", "deep/curve.png"]) == 0
    out, err = capsys.readouterr()
    assert 1e-7 < float(out) < 10
    assert [line.split(":")[0] for line in err.splitlines()] == [
        *(f"learning rate, {name}" for name in ("valley", "steep", "minimum")),
        "learning rate",
    ]
    assert (
        err.splitlines()[-1]
        == f"learning rate: {float(out):.2e} (valley: where the loss is half way down from its highest point to its lowest)"
    )
    assert (here / "deep" / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert run(["lr-find", "mnist", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["suggestion"] == found["suggestions"]["valley"]
    assert found["suggestion"] == pytest.approx(float(out), rel=1e-2)
    assert len(found["lrs"]) == len(found["losses"])
    assert run(["lr-find", "mnist", "--out", "deep"]) == 1
    assert capsys.readouterr().err == "error: deep is a folder; expected the name of a file\n"
