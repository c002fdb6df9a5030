"""Whole journeys of a file: inspect, train, predict to a table, read it back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, r2_score, root_mean_squared_error

from cli.people_table import QUICK, people, train_args
from onecycle import load_learner
from onecycle.cli.app import run

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]


def printed(capsys: Capture, *args: str) -> Any:
    """What a command printed as JSON."""
    capsys.readouterr()
    assert run([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def journey(capsys: Capture, what: str) -> tuple[dict[str, Any], dict[str, Any], pa.Table]:
    """Of inspect and train what they printed, and the table that predict wrote, of the validation rows."""
    pq.write_table(people(), "people.parquet")
    args = train_args("people.parquet", what)
    seen = printed(capsys, "inspect", *args[1 : args.index("--lr")], "--model", "tabular:16")
    done = printed(capsys, *args)
    assert run(["predict", "runs/people", "people.parquet", "-o", "out.parquet"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("out.parquet\n", "out.parquet: 400 rows\n")
    table = pq.read_table("out.parquet")
    assert table.column_names[: people().num_columns] == people().column_names
    assert table.select(people().column_names).equals(people())
    return seen, done, table.filter(pa.compute.equal(table["part"], "valid"))


def test_classification(here: Path, capsys: Capture) -> None:
    seen, done, table = journey(capsys, "classes")
    kinds = {column["name"]: column["kind"] for column in seen["columns"]}
    assert kinds == {
        **{"age": "number", "town": "category", "member": "category", "joined": "date", "group": "target"},
        **dict.fromkeys(["name", "planet", "part", "score", "is high", "is Ulm", "tags"], "dropped"),
    }
    assert seen["training"]["rows"] == {"train": 300, "valid": 100}
    assert seen["training"]["model"] == {
        "name": "TabularModel",
        "hidden": [16],
        "parameters": sum(p.numel() for p in load_learner("runs/people/model", device="cpu").model.parameters()),
    }
    assert seen["training"]["steps"] == 2 * seen["training"]["batches"]
    assert done["accuracy"] == pytest.approx(accuracy_score(table["group"], table["prediction"]))
    assert done["f1_score"] == pytest.approx(f1_score(table["group"], table["prediction"], average="macro"))
    assert done["accuracy"] > 0.6
    labels = ["high", "low", "middle"]
    assert table.column_names[-4:] == ["prediction", *(f"probability_{label}" for label in labels)]
    probabilities = np.stack([table[f"probability_{label}"].to_numpy() for label in labels], 1)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert [labels[at] for at in probabilities.argmax(1)] == table["prediction"].to_pylist()


def test_regression(here: Path, capsys: Capture) -> None:
    seen, done, table = journey(capsys, "regression")
    wanted = np.sort(people()["score"].to_numpy())
    [quantiles] = seen["training"]["target"]["quantiles"]
    assert quantiles["min"] == pytest.approx(wanted[0], abs=0.01)
    assert quantiles["median"] == pytest.approx(np.median(wanted), rel=1e-2)
    assert done["rmse"] == pytest.approx(root_mean_squared_error(table["score"], table["prediction"]), rel=1e-5)
    assert done["r2_score"] == pytest.approx(r2_score(table["score"], table["prediction"]), rel=1e-4)
    assert done["r2_score"] > 0.5
    assert table.column_names[-1] == "prediction"
    report = Path("runs/people/report.html").read_text()
    for word in ("Predicted over actual values", "Largest errors", "score, actual"):
        assert word in report
    assert "Confusion matrix" not in report


@pytest.mark.parametrize("what", ["multilabel", "lists"])
def test_several_labels(here: Path, capsys: Capture, what: str) -> None:
    seen, done, table = journey(capsys, what)
    labels = ["is high", "is Ulm"] if what == "multilabel" else ["Ulm", "old"]
    assert [label["name"] for label in seen["training"]["target"]["labels"]] == labels
    there = np.array([[label in tags for label in labels] for tags in table["tags"].to_pylist()])
    if what == "multilabel":
        there = np.stack([table[label].to_numpy() for label in labels], 1)
    predicted = np.array([[label in row for label in labels] for row in table["prediction"].to_pylist()])
    assert done["f1_score"] == pytest.approx(f1_score(there, predicted, average="macro"))
    assert {"f1_score", "roc_auc", "average_precision"} <= done.keys()
    probabilities = np.stack([table[f"probability_{label}"].to_numpy() for label in labels], 1)
    assert ((probabilities > 0.5) == predicted).all()
    assert "<h2>Labels</h2>" in Path("runs/people/report.html").read_text()


@pytest.mark.usefixtures("no_pictures")
def test_arrays(here: Path, capsys: Capture) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 3))
    np.savez("arrays.npz", x=x, y=(x[:, 0] > 0).astype(int))
    np.savez("new.npz", rows=x[:5])
    seen = printed(capsys, "inspect", "arrays.npz")
    assert [column["kind"] for column in seen["columns"]] == ["number", "number", "number", "target"]
    done = printed(capsys, "train", "arrays.npz", *QUICK)
    assert {"accuracy", "f1_score", "roc_auc"} <= done.keys()  # of two classes
    assert run(["predict", "runs/arrays", "new.npz"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    scores = printed(capsys, "predict", "runs/arrays", "arrays.npz")["scores"]
    assert scores["accuracy"] > 0.8
    assert scores.keys() == {"accuracy", "f1_score", "roc_auc"}


@pytest.mark.usefixtures("no_pictures")
def test_a_folder_of_images(here: Path, capsys: Capture) -> None:
    random = np.random.default_rng(0)
    for label, shade in (("dark", 20), ("light", 200)):
        Path("photos", label).mkdir(parents=True)
        for i in range(20):
            pixels = random.integers(shade, shade + 50, (6, 6)).astype(np.uint8)
            Image.fromarray(pixels).resize((6 + i % 2, 6)).save(f"photos/{label}/{i}.png")
    assert run(["train", "photos"]) == 2
    assert "expected one size" in capsys.readouterr().err
    assert not Path("runs").exists()
    training = printed(capsys, "inspect", "photos", "--image-size", "6")["training"]
    assert training["inputs"] == {"shape": [6, 6]}
    assert [entry["name"] for entry in training["target"]["classes"]] == ["dark", "light"]
    done = printed(capsys, *("train", "photos", "--image-size", "6", "--epochs", "20", "--lr", "0.05"))
    assert done["accuracy"] == 1
    assert run(["predict", "runs/photos", "photos/light/3.png"]) == 0
    assert capsys.readouterr().out.startswith("light\t")
    assert run(["predict", "runs/photos", "photos"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 40
    assert all(Path(name).parent.name == label for name, label, _ in lines)
    assert run(["predict", "runs/photos", "photos", "-o", "out.csv"]) == 0
    table = pyarrow.csv.read_csv("out.csv")
    assert table.column_names == ["file", "prediction", "probability_dark", "probability_light"]
    assert table.num_rows == 40


@pytest.mark.slow
def test_the_commands_as_processes(here: Path) -> None:
    pyarrow.csv.write_csv(people().drop_columns(["tags"]), "people.csv.gz")
    Path("people.csv").write_bytes(Path("people.csv.gz").read_bytes())
    command = [sys.executable, "-m", "onecycle"]

    def done(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *args], capture_output=True, text=True, check=False)

    seen = done("inspect", "people.csv", "--target", "group")
    assert (seen.returncode, seen.stderr) == (0, "")
    assert "group    target" in seen.stdout
    trained = done("train", "people.csv", "--target", "group", *QUICK, "--json")
    assert trained.returncode == 0
    assert "Traceback" not in trained.stderr
    assert json.loads(trained.stdout)["stopped"] is None
    predicted = done("predict", "runs/people", "people.csv")
    assert (predicted.returncode, predicted.stderr) == (0, "")
    assert len(predicted.stdout.splitlines()) == 400
    wrong = done("predict", "runs/people", "missing.csv")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: missing.csv: no such file")
