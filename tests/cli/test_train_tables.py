"""`onecycle train` and `lr-find` on files: what they say and take, and what they refuse."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cli.people_table import QUICK, people, train_args
from onecycle import Record, load_learner
from onecycle.cli.app import run

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
NOISY = "the loss does not fall by more than it varies from batch to batch"


def printed(capsys: Capture, *args: str) -> Any:
    """What a command printed as JSON."""
    capsys.readouterr()
    assert run([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_train_tells_what_it_does(here: Path, capsys: Capture) -> None:
    pq.write_table(people(), "people.parquet")
    assert run([*train_args("people.parquet", "classes"), "--out", "out"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        *(f"out/{name}" for name in ("model", "record.json", "lr.png", "losses.png", "metrics.png", "confusion.png")),
        "out/report.html",
    ]
    lines = err.splitlines()
    assert lines[0] == "read people.parquet: 400 rows, 12 columns"
    assert lines[1] == 'dropped "name": identifier: 300 distinct texts in 300 rows'
    assert lines[2] == "dropped \"planet\": constant: always 'Earth'"
    assert lines[3].startswith("target: group, 3 classes: ")
    assert lines[4] == "split: 300 rows to train on, 100 rows to validate (column:part)"
    assert lines[5].startswith("model: TabularModel of ")
    assert lines[6] == "training: 2 epochs of 9 batches of 32 rows, 18 steps"
    assert lines[7].split() == ["epoch", "train_loss", "valid_loss", "accuracy", "f1_score", "time"]
    record = Record.load("out/record.json")
    assert record.settings["target"] == ["group"]
    assert record.settings["dropped"] == ["name", "planet"]
    assert record.mistakes is not None
    assert all(loss["image"] is None for loss in record.mistakes["top_losses"])


@pytest.mark.usefixtures("no_pictures")
def test_images_with_and_without_colours(here: Path, capsys: Capture) -> None:
    for mode, folder in (("RGB", "colours"), ("L", "gray")):
        for label, shade in (("dark", (20, 30, 40)), ("light", (200, 210, 220))):
            Path(folder, label).mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (4, 5), shade).convert(mode).save(f"{folder}/{label}/{i}.png")
        assert run(["train", folder, "--epochs", "30", "--lr", "0.05", "--device", "cpu"]) == 0
    for model in ("colours", "gray"):
        for folder in ("colours", "gray"):
            for label in ("dark", "light"):
                Image.open(f"{folder}/{label}/0.png").resize((9, 9)).save("large.png")
                capsys.readouterr()
                assert run(["predict", f"runs/{model}", "large.png"]) == 0
                assert capsys.readouterr().out.startswith(f"{label}\t")
    Path("empty").mkdir()
    assert run(["predict", "runs/gray", "empty"]) == 2
    assert "empty: no PNG or JPEG images in this folder" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
def test_text_that_looks_like_numbers_stays_as_written(here: Path, capsys: Capture) -> None:
    random = np.random.default_rng(0)
    codes = random.choice(["01", "1", "02"], 120)
    rows = [f"{code},{number:.3f},{int(code == '01')}" for code, number in zip(codes, random.random(120), strict=True)]
    Path("codes.csv").write_text("\n".join(["code,number,y", *rows]))
    args = ["codes.csv", "--target", "y", "--kind", "code=category"]
    found = printed(capsys, "inspect", *args)
    assert (found["columns"][0]["kind"], found["columns"][0]["distinct"]) == ("category", 3)
    assert printed(capsys, "train", *args, "--epochs", "20", "--lr", "0.02")["accuracy"] == 1
    assert run(["predict", "runs/codes", "codes.csv", "-o", "out.parquet"]) == 0
    out = pq.read_table("out.parquet")
    assert out["code"].to_pylist() == codes.tolist()
    assert (out["prediction"].to_numpy() == (codes == "01")).all()


def test_ctrl_c_before_training_leaves_nothing_behind(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    Path("a.csv").write_text("a,b\n1,2\n")
    monkeypatch.setattr("onecycle.cli.setup.read_source", stopped)
    for args in (["train"], ["lr-find", "--out", "deep/x.png"], ["train", "--out", "deep/er"]):
        assert run([*args, "a.csv", "--target", "b"]) == 130
        assert capsys.readouterr().err.endswith("error: interrupted\n")
        assert [path.name for path in here.iterdir()] == ["a.csv"]


@pytest.mark.usefixtures("no_pictures")
def test_same_seed_same_run(here: Path) -> None:
    pq.write_table(people(), "people.parquet")
    drop = "name,planet,part,score,is high,is Ulm,tags"
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        more = ["--drop", drop, "--seed", seed, "--out", out]
        assert run(["train", "people.parquet", "--target", "group", *QUICK, *more]) == 0
    a, b, c = (Record.load(f"{out}/record.json").batch_losses for out in "abc")
    assert a == b
    assert a != c


@pytest.mark.usefixtures("no_pictures")
def test_test_rows_are_scored_too(here: Path, capsys: Capture) -> None:
    table = people()
    part = np.array(["train", "valid", "test", "train"])[np.arange(400) % 4]
    pq.write_table(table.set_column(table.column_names.index("part"), "part", pa.array(part)), "people.parquet")
    done = printed(capsys, *train_args("people.parquet", "classes"))
    assert done["test"].keys() == {"test_loss", "accuracy", "f1_score"}
    settings = Record.load("runs/people/record.json").settings
    assert settings["accuracy on test rows"] == done["test"]["accuracy"]


@pytest.mark.usefixtures("no_pictures")
def test_mlp_on_a_table(here: Path, capsys: Capture) -> None:
    pq.write_table(people(), "people.parquet")
    args = ["train", "people.parquet", "--target", "score", *QUICK[:4], "--model", "mlp:8"]
    assert run([*args, "--out", "a"]) == 0
    assert "mlp: the table has categories, so the model is a TabularModel of these widths" in capsys.readouterr().err
    assert type(load_learner("a/model").model).__name__ == "TabularModel"
    assert run([*args, "--drop", "town,member,part,group,tags", "--out", "b"]) == 0
    assert "mlp: " not in capsys.readouterr().err
    assert type(load_learner("b/model").model).__name__ == "MLP"


def test_lr_find(here: Path, capsys: Capture) -> None:
    pq.write_table(people(), "people.parquet")
    assert run(["lr-find", "people.parquet", "--target", "score", "--drop", "tags"]) == 0
    out, err = capsys.readouterr()
    assert 1e-7 < float(out) < 10
    assert "target: score, regression: " in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ["people.csv"],
            "people.csv: --target is missing, which says what is predicted; the columns are age, town, member, joined, "
            "name, planet, part, group, score, is high, is Ulm; for example --target 'is Ulm'",
        ),
        (["people.csv", "--target", "scroe"], 'there is no column "scroe" to predict; did you mean "score"?'),
        (["people.csv", "--target", "score", "--drop", "nmae"], 'drop names "nmae", but there is no such column'),
        (["people.csv", "--target", "score", "--kind", "agee=number"], 'kinds names "agee", but there is no such'),
        (["people.csv", "--target", "score", "--split", "time:joinde"], 'split "time:joinde"'),
        (["people.csv", "--target", "age"], 'target "age" is missing in'),
        (["people.csv", "--target", "group", "--task", "regression"], 'column "group" is'),
        (["people.csv", "--target", "score", "--image-size", "8"], "--image-size is for a folder of images"),
        (["broken.csv", "--target", "b"], "broken.csv:3:"),
        (["images.npz", "--target", "y"], "--target is for tables; images.npz holds images or arrays"),
        (["images.npz", "--model", "tabular:8"], "--model tabular is for tables; these are images or arrays"),
    ],
)
def test_what_cannot_be_trained_on_leaves_nothing_behind(
    here: Path, capsys: Capture, args: list[str], message: str
) -> None:
    pyarrow.csv.write_csv(people().drop_columns(["tags"]), "people.csv")
    Path("broken.csv").write_text("a,b\n1,2\n3,4,5\n")
    np.savez("images.npz", x=np.zeros((20, 4, 4), np.uint8), y=np.arange(20) % 2)
    before = sorted(here.iterdir())
    assert run(["train", *args]) == 2
    out, err = capsys.readouterr()
    assert not out
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert sorted(here.iterdir()) == before


def test_a_run_is_not_overwritten(trained: Path, here: Path, capsys: Capture) -> None:
    before = {path: path.stat().st_mtime_ns for path in (trained / "classes").rglob("*")}
    args = train_args(trained / "people.parquet", "classes")
    assert run([*args, "--out", str(trained / "classes")]) == 2
    assert "is not empty; give another --out, or --force" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in (trained / "classes").rglob("*")}


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("suggestions", "taken", "said"),
    [
        ({"valley": 2e-2}, 2e-2, "2.00e-02 (valley: where the loss is"),
        ({}, 3e-3, f"3.00e-03 ({NOISY}; 0.003 is the def"),
    ],
)
def test_a_noisy_curve_does_not_spoil_the_training(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, suggestions: dict[str, float], taken: float, said: str
) -> None:
    monkeypatch.setattr("onecycle.train.lr_find.LRFindResult.suggestions", lambda self: suggestions)
    pq.write_table(people(), "people.parquet")
    args = ["people.parquet", "--target", "score", "--drop", "tags", "--model", "tabular:8"]
    assert run(["train", *args, "--epochs", "1", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["lr"] == taken
    assert f"learning rate: {said}" in err
    assert "training: 1 epoch of 10 batches of 32 rows, 10 steps" in err.splitlines()
    record = Record.load("runs/people/record.json")
    assert record.settings["max_lr"] == taken
    assert record.settings["lr_choice"] == (
        "suggested by the finder" if suggestions else f"{NOISY}; 0.003 is the default"
    )
    assert run(["lr-find", *args]) == 0
    out, err = capsys.readouterr()
    assert float(out) == taken
    assert f"learning rate: {said}" in err
