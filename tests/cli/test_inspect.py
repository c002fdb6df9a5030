"""`onecycle inspect`: what is shown of a file, and that it is what training does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len

from cli.people_table import people
from cli.terminal import on_terminal, visible
from onecycle.cli.app import run
from onecycle.data.from_table import default_epochs

Capture = pytest.CaptureFixture[str]


def shown(capsys: Capture, *args: str) -> str:
    """What inspect prints."""
    capsys.readouterr()
    assert run(["inspect", *args]) == 0
    out, err = capsys.readouterr()
    assert not err
    return out


@pytest.fixture
def file(here: Path) -> str:
    pq.write_table(people(), "people.parquet")
    return "people.parquet"


def test_columns_and_plan(file: str, capsys: Capture) -> None:
    out = shown(capsys, file, "--target", "group", "--drop", "score,tags,is high,is Ulm", "--split", "column:part")
    assert out.startswith("people.parquet: 400 rows, 12 columns\n\ncolumn   kind      type         missing  distinct")
    cells = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line and not line.startswith(" ")}
    missing = people()["age"].null_count
    assert cells["age"][:4] == ["number", "float64", str(missing), str(400 - missing)]
    assert cells["town"][:4] == ["category", "string", str(people()["town"].null_count), "3"]
    assert cells["joined"][:2] == ["date", "date32[day]"]
    assert cells["group"][0] == "target"
    assert cells["name"][:2] == cells["planet"][:2] == ["dropped", "string"]
    for words in (
        "identifier: 400",
        "constant: always",
        "says how the rows are",
        "left out by --drop",
        "target: group, 3 classes\n",
        "#" * 24,
        "300 rows to train on, 100 rows to validate (column:part)",
        "cross-entropy; metrics accuracy, f1_score",
        f"{default_epochs(9)} epochs of 9 batches of 32 rows, {9 * default_epochs(9):,} steps",
    ):
        assert words in out


def test_a_regression_shows_quantiles(file: str, capsys: Capture) -> None:
    out = shown(capsys, file, "--target", "score")
    assert "target: score, regression\n" in out
    head, values = out[out.index("  min") :].splitlines()[:2]
    assert head.split() == ["min", "5%", "25%", "median", "75%", "95%", "max"]
    assert float(values.split()[0].replace(",", "")) == pytest.approx(min(people()["score"].to_pylist()), abs=0.01)
    assert "mean squared error; metrics rmse, mae, r2_score" in out


def test_without_a_target_only_the_columns_are_shown(file: str, capsys: Capture) -> None:
    assert run(["inspect", file]) == 0
    out, err = capsys.readouterr()
    assert "tags" in out
    assert "training would" not in out
    assert err == (
        "--target NAME says what is predicted, and then what training would do; for example --target 'is Ulm'\n"
    )
    assert run(["inspect", file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["training"] is None
    assert (found["rows"], len(found["columns"])) == (400, 12)
    assert found["columns"][0].keys() == {"name", "kind", "type", "missing", "distinct", "why", "examples"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1.5,2"], "the table has 1 row; expected at least 2, one of them to validate"),
        (["1.5,a"] * 30, "target \"y\" has only one class, 'a', in all 30 rows; expected two or more"),
        (["1.5,a", "1.5,b"] * 20, 'no column is left to learn from; dropped: "x" (constant: always 1.5)'),
    ],
)
def test_it_says_what_training_would_say(rows: list[str], message: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *rows]))
    said: list[str] = []
    for command in ("inspect", "train"):
        assert run([command, str(tmp_path / "t.csv"), "--target", "y"]) == 2
        said.append(capsys.readouterr().err.splitlines()[-1])
    assert said[0] == said[1]
    assert said[0].startswith(f"error: {message}")


def test_columns_that_nothing_can_be_learned_from_are_shown(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "t.csv").write_text("x,y\n1.5,2\n")
    assert run(["inspect", str(tmp_path / "t.csv")]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path / 't.csv'}: 1 row, 2 columns\n")
    assert "constant: always 1.5" in out
    assert err.endswith("for example --target y\n")


def test_text_that_is_no_date_is_missing_as_it_is_said(tmp_path: Path, capsys: Capture) -> None:
    rows = [f"2020-01-{1 + i % 28:02},{i * 7 % 11 / 3}" for i in range(100)]
    for bad in (3, 30, 31, 57):  # some of them among the rows that validate
        (tmp_path / "t.csv").write_text(
            "\n".join(["sold,y", *rows[:bad], f"yesterday,{bad}.5", *rows[bad + 1 :]]) + "\n"
        )
        assert run(["inspect", str(tmp_path / "t.csv"), "--target", "y", "--json"]) == 0
        assert "not a date in 1 row, for example 'yesterday', which counts as missing" in capsys.readouterr().out


def test_columns_are_shown_before_an_error(file: str, capsys: Capture) -> None:
    assert run(["inspect", file, "--target", "age"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("people.parquet: 400 rows")
    assert err.startswith('error: target "age" is missing in')
    assert run(["inspect", file, "--target", "age", "--json"]) == 2
    assert not capsys.readouterr().out


@pytest.mark.usefixtures("no_pictures")
def test_training_does_what_was_shown(file: str, capsys: Capture) -> None:
    options = ["--target", "is high,is Ulm", "--drop", "score", "--valid", "0.3", "--bs", "25", "--epochs", "3"]
    plan = json.loads(shown(capsys, file, *options, "--json"))["training"]
    assert run(["train", file, *options, "--lr", "0.01", "--device", "cpu"]) == 0
    settings = json.loads(Path("runs/people/record.json").read_text())["settings"]
    assert settings["bs"] == plan["bs"] == 25
    assert settings["epochs"] == plan["epochs"] == 3
    assert (settings["train rows"], settings["valid rows"]) == (plan["rows"]["train"], plan["rows"]["valid"])
    assert settings["hidden"] == plan["model"]["hidden"]
    assert settings["loss"] == plan["loss"]
    assert settings["task"] == plan["target"]["task"] == "multilabel"


def test_kinds_and_tasks_that_are_set(file: str, capsys: Capture) -> None:
    options = ["--target", "is high", "--task", "regression", "--kind", "member=dropped", "--kind", "town=category"]
    found = json.loads(shown(capsys, file, *options, "--json"))
    kinds = {column["name"]: (column["kind"], column["why"]) for column in found["columns"]}
    assert kinds["member"][0] == "dropped"
    assert kinds["town"] == ("category", "set by kinds")
    assert found["training"]["target"]["quantiles"][0]["max"] == 1


def test_long_names_many_classes_and_huge_numbers_stay_readable(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = ["number", "category", "number", "target", "number"]
    random = np.random.default_rng(0)
    long = "a very long name of a column that goes on and on (measured in metres per second)"
    table = pa.table(
        {
            long: random.normal(size=300) * 1e9,
            "日本語": random.choice(["東京", "大阪"], 300),
            "line\nbreak": random.normal(size=300),
            "city": [f"a city with a name of many words, number {i % 40}" for i in range(300)],
            "amount": random.normal(size=300) * 1e12,
        }
    )
    pq.write_table(table, "odd.parquet")
    out = shown(capsys, "odd.parquet", "--target", "city")
    assert "and 28 more, with " in out
    head, *columns = out[: out.index("\n\ntarget:")].splitlines()[2:]
    assert [column.split("  ")[0] for column in columns] == [long, "日本語", "line break", "city", "amount"]
    before_kind = cell_len(head[: head.index("kind")])
    assert all(
        cell_len(column[: column.index(kind)]) == before_kind for column, kind in zip(columns, kinds, strict=True)
    )
    for target in ("city", "amount", long):
        lines = visible(on_terminal(monkeypatch, "inspect", "odd.parquet", "--target", target)).splitlines()
        assert max(map(cell_len, lines)) <= 80
        assert " ".join(line[:20].strip() for line in lines[3:8]) == long  # wrapped, and not cut


@pytest.mark.parametrize(("steps", "epochs"), [(100, 20), (187, 12), (1_000, 8), (10**9, 8)])
def test_epochs_make_about_2_200_steps(steps: int, epochs: int) -> None:
    assert default_epochs(steps) == epochs
    assert default_epochs(1) == default_epochs(2) >= 20  # small tables are not seen without end


def test_on_a_terminal_it_has_colours_and_fits(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = on_terminal(monkeypatch, "inspect", file, "--target", "group")
    assert "\x1b[36mnumber" in out
    assert "training would" in out
    assert max(map(cell_len, visible(out).splitlines())) <= 80


def test_mnist(capsys: Capture, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training: dict[str, Any] = json.loads(shown(capsys, "mnist", "--json"))["training"]
    assert training["rows"] == {"train": 50_000, "valid": 10_000, "test": 10_000}
    assert training["model"] == {"name": "MLP", "hidden": [50], "parameters": 39_760}
    assert (training["bs"], training["epochs"]) == (64, 1)
