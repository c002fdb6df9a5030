"""`onecycle predict` for models of tables: what it takes, what it writes, what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score

from cli.people_table import people
from cli.terminal import Terminal
from onecycle import load_learner
from onecycle.cli.app import run

pytestmark = pytest.mark.slow

Capture = pytest.CaptureFixture[str]
INPUTS = ["age", "town", "member", "joined"]


@pytest.fixture
def runs(trained: Path, here: Path) -> Path:
    """Runs to predict with, and people.parquet of rows that they were not trained on, in a folder of the test's own."""
    pq.write_table(people(50, seed=9), "people.parquet")
    return trained


def lines(capsys: Capture, *args: Any) -> list[list[str]]:
    """The lines of stdout, split at tabs."""
    capsys.readouterr()
    assert run(["predict", *map(str, args)]) == 0
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def fails(capsys: Capture, *args: Any) -> str:
    """The error of a prediction that must leave nothing behind."""
    before = {path: path.stat().st_mtime_ns for path in sorted(Path().rglob("*"))}
    capsys.readouterr()
    assert run(["predict", *map(str, args)]) in (1, 2)
    out, err = capsys.readouterr()
    assert not out
    assert before == {path: path.stat().st_mtime_ns for path in sorted(Path().rglob("*"))}
    return err.splitlines()[-1].removeprefix("error: ")


def test_a_line_for_each_row(runs: Path, capsys: Capture) -> None:
    probabilities, _ = load_learner(runs / "classes" / "model", device="cpu").get_preds("people.parquet")
    best = [["high", "low", "middle"][at] for at in probabilities.argmax(1)]
    highest = [str(round(float(p), 6)) for p in probabilities.amax(1)]
    assert lines(capsys, runs / "classes", "people.parquet") == [list(row) for row in zip(best, highest, strict=True)]
    values, _ = load_learner(runs / "regression" / "model", device="cpu").get_preds("people.parquet")
    found = np.array(lines(capsys, runs / "regression", "people.parquet"), float)
    np.testing.assert_allclose(found, values.numpy().reshape(-1, 1), rtol=1e-6)
    labels = {line[0] for line in lines(capsys, runs / "multilabel", "people.parquet")}
    assert "is high,is Ulm" in labels
    assert labels <= {"is high,is Ulm", "is high", "is Ulm", ""}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".arrow", ".feather", ".CSV"])
def test_all_formats_hold_the_same(runs: Path, capsys: Capture, suffix: str) -> None:
    assert lines(capsys, runs / "classes", "people.parquet", "-o", f"deep/out{suffix}") == [[f"deep/out{suffix}"]]
    readers = {
        ".parquet": pq.read_table,
        ".csv": pyarrow.csv.read_csv,
        ".tsv": lambda path: pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(delimiter="\t")),
    }
    found = readers.get(suffix.lower(), pyarrow.feather.read_table)(f"deep/out{suffix}")
    table = people(50, seed=9)
    new = ["prediction", "probability_high", "probability_low", "probability_middle"]
    assert found.column_names == [*table.column_names, *new]
    printed = lines(capsys, runs / "classes", "people.parquet")
    assert found["prediction"].to_pylist() == [label for label, _ in printed]
    highest = np.max([found[name].to_numpy() for name in new[1:]], axis=0)
    np.testing.assert_allclose(highest, [float(p) for _, p in printed], atol=1e-6)
    if suffix.lower() not in (".csv", ".tsv"):
        assert found.select(table.column_names).equals(table)
    else:
        assert found["tags"].to_pylist() == [";".join(tags) for tags in table["tags"].to_pylist()]
        assert found["joined"].to_pylist() == table["joined"].to_pylist()


def test_labels_as_a_table(runs: Path, capsys: Capture) -> None:
    for suffix in ("parquet", "csv"):
        lines(capsys, runs / "lists", "people.parquet", "-o", f"out.{suffix}")
    found, text = pq.read_table("out.parquet"), pyarrow.csv.read_csv("out.csv")
    assert found["prediction"].type == pa.list_(pa.string())
    for row in found.to_pylist():
        assert row["prediction"] == [label for label in ("Ulm", "old") if row[f"probability_{label}"] > 0.5]
    assert text["prediction"].to_pylist() == [";".join(labels) for labels in found["prediction"].to_pylist()]


def test_columns_in_another_order_among_others_and_unseen_values(runs: Path, capsys: Capture) -> None:
    table = people(50, seed=9)
    want = lines(capsys, runs / "classes", "people.parquet")
    pyarrow.csv.write_csv(table.select([*reversed(INPUTS), "planet"]), "few.csv")
    assert lines(capsys, runs / "classes", "few.csv") == want
    pq.write_table(table.select(INPUTS).append_column("more", pa.array(range(50))), "more.parquet")
    assert lines(capsys, runs / "classes", "more.parquet") == want
    unseen = table.set_column(1, "town", pa.array(["Atlantis"] * 50)).set_column(0, "age", pa.nulls(50, pa.float64()))
    pq.write_table(unseen, "unseen.parquet")
    assert len(lines(capsys, runs / "classes", "unseen.parquet")) == 50


def test_new_columns_whose_names_are_taken(runs: Path, capsys: Capture) -> None:
    lines(capsys, runs / "classes", "people.parquet", "-o", "once.parquet")
    assert run(["predict", str(runs / "classes"), "once.parquet", "-o", "twice.parquet"]) == 0
    out, err = capsys.readouterr()
    assert out == "twice.parquet\n"
    new = "prediction_1, probability_high_1, probability_low_1, probability_middle_1"
    assert err.startswith(f"the file has columns of these names; the new ones are {new}\n")
    twice = pq.read_table("twice.parquet")
    assert ", ".join(twice.column_names[-4:]) == new
    assert twice["prediction_1"].equals(twice["prediction"])
    lines(capsys, runs / "classes", "twice.parquet", "-o", "thrice.parquet")
    assert pq.read_schema("thrice.parquet").names[-4] == "prediction_2"


@pytest.mark.parametrize("source", ["people.parquet", "people.csv", "people.arrow"])
def test_in_chunks_as_at_once(runs: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    table = people(50, seed=9).drop_columns(["tags"])
    table = table.set_column(1, "town", table["town"].dictionary_encode())
    pyarrow.csv.write_csv(table, "people.csv")
    pyarrow.feather.write_feather(table, "people.arrow", chunksize=20)
    pq.write_table(table, "people.parquet")
    for suffix in ("parquet", "csv", "arrow"):
        lines(capsys, runs / "regression", source, "-o", f"whole.{suffix}")
    monkeypatch.setattr("onecycle.cli.prediction_rows.STREAMED_ROWS", 7)
    for suffix, read in (
        ("parquet", pq.read_table),
        ("csv", pyarrow.csv.read_csv),
        ("arrow", pyarrow.feather.read_table),
    ):
        lines(capsys, runs / "regression", source, "-o", f"chunks.{suffix}")
        whole, chunks = read(f"whole.{suffix}"), read(f"chunks.{suffix}")
        assert chunks.drop_columns(["prediction"]).equals(whole.drop_columns(["prediction"]))
        np.testing.assert_allclose(chunks["prediction"].to_numpy(), whole["prediction"].to_numpy(), rtol=1e-6)


def test_scores_where_the_target_is_there(runs: Path, capsys: Capture) -> None:
    table = people(50, seed=9)

    def found(*args: str) -> dict[str, Any]:
        capsys.readouterr()
        assert run(["predict", str(runs / "classes"), *args, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    at_once = found("people.parquet")
    predicted = [entry["class"] for entry in at_once["predictions"]]
    assert at_once["scores"]["accuracy"] == pytest.approx(accuracy_score(table["group"], predicted))
    assert found("people.parquet", "-o", "out.csv") == {"file": "out.csv", "rows": 50, "scores": at_once["scores"]}
    pq.write_table(table.select(INPUTS), "inputs.parquet")
    assert found("inputs.parquet")["scores"] is None


def test_targets_that_cannot_be_scored_do_no_harm(runs: Path, capsys: Capture) -> None:
    table = people(50, seed=9)
    at = table.column_names.index("group")
    unknown = pc.if_else(pc.equal(table["group"], "low"), "lower", table["group"])
    for name, column in (("missing", pa.nulls(50, pa.string())), ("unknown", unknown)):
        pq.write_table(table.set_column(at, "group", column), f"{name}.parquet")
        assert run(["predict", str(runs / "classes"), f"{name}.parquet", "--json"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["scores"] is None
        assert len(json.loads(out)["predictions"]) == 50
        assert err.startswith(f"{name}.parquet: no scores, because ")
    assert run(["predict", str(runs / "classes"), "unknown.parquet"]) == 0
    assert capsys.readouterr().err == ""


def test_values_of_several_targets(here: Path, capsys: Capture) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 2)).astype(np.float32)
    np.savez("two.npz", x=x, y=np.stack([x[:, 0], 5 - x[:, 1]], 1))
    quick = ["--epochs", "1", "--lr", "0.01", "--model", "tabular:", "--device", "cpu"]
    assert run(["train", "two.npz", *quick]) == 0
    assert all(len(row) == 2 for row in lines(capsys, "runs/two", "two.npz"))
    lines(capsys, "runs/two", "two.npz", "-o", "out.csv")
    assert pyarrow.csv.read_csv("out.csv").column_names == ["x0", "x1", "y0", "y1", "prediction_y0", "prediction_y1"]
    assert run(["predict", "runs/two", "two.npz", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["predictions"][0]["values"].keys() == {"y0", "y1"}
    assert found["scores"].keys() == {"rmse", "mae", "r2_score"}
    np.save("one.npy", x[0])
    assert len(lines(capsys, "runs/two", "one.npy")) == 1


def test_an_existing_file_is_kept(runs: Path, capsys: Capture) -> None:
    Path("out.parquet").write_text("mine")
    message = fails(capsys, runs / "classes", "people.parquet", "-o", "out.parquet")
    assert message == "out.parquet exists; give another -o, or --force to replace it"
    Path("folder.csv").mkdir()
    assert "folder.csv is a folder" in fails(capsys, runs / "classes", "people.parquet", "-o", "folder.csv", "--force")
    assert lines(capsys, runs / "classes", "people.parquet", "-o", "out.parquet", "--force") == [["out.parquet"]]
    assert pq.read_table("out.parquet").num_rows == 50
    pyarrow.csv.write_csv(people(50, seed=9).select(INPUTS), "same.csv")
    lines(capsys, runs / "classes", "same.csv", "-o", "same.csv", "--force")
    assert pyarrow.csv.read_csv("same.csv").num_columns == len(INPUTS) + 4


@pytest.mark.parametrize("more", [[], ["-o", "deep/out.parquet"]])
def test_what_cannot_be_predicted_leaves_nothing_behind(runs: Path, capsys: Capture, more: list[str]) -> None:
    table = people(50, seed=9)
    pq.write_table(table.rename_columns({"town": "twon"}), "twon.parquet")
    pq.write_table(table.set_column(0, "age", pa.array(["old"] * 50)), "words.parquet")
    np.save("wrong.npy", np.zeros((3, 2)))
    np.save("cube.npy", np.zeros((3, 2, 2)))
    Path("cut.parquet").write_bytes(Path("people.parquet").read_bytes()[:-100])
    Path("x.png").write_bytes(b"")
    for file, message in (
        (
            "twon.parquet",
            'twon.parquet: the table has no column "town", which the model was trained with; did you mean "twon"?',
        ),
        ("words.parquet", "words.parquet: "),
        ("wrong.npy", 'wrong.npy: the table has no column "age", which the model was trained with; there are x0, x1'),
        ("cube.npy", "cube.npy: holds an array of float64 of shape (3, 2, 2); expected numbers (rows, columns)"),
        ("cut.parquet", "cut.parquet: "),
        ("missing.csv", "missing.csv: no such file"),
        ("x.png", "x.png: the model was trained on a table; expected one with its columns, or a npy or npz file"),
    ):
        assert fails(capsys, runs / "classes", file, *more).startswith(message)


def test_a_cell_that_is_wrong_far_down_leaves_nothing_behind(
    runs: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onecycle.cli.prediction_rows.STREAMED_ROWS", 10)
    table = people(50, seed=9)
    joined = [str(day) for day in table["joined"].to_pylist()]
    joined[42] = "never"
    pq.write_table(table.set_column(3, "joined", pa.array(joined)), "people.parquet")
    message = fails(capsys, runs / "classes", "people.parquet", "-o", "deep/out.csv")
    assert message.startswith("people.parquet: ")
    assert "row 42" in message
    assert "'never'" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.xls", "-o is out.xls; expected a name that ends in .parquet, .csv, .tsv, .arrow, .feather"),
        ("out.parqet", 'did you mean ".parquet"?'),
        ("out", "-o is out; expected a name that ends in .parquet"),
    ],
)
def test_suffixes_that_cannot_be_written(here: Path, capsys: Capture, name: str, message: str) -> None:
    assert message in fails(capsys, "run", "file.csv", "-o", name)


def test_the_files_own_columns_come_out_as_they_were_written(runs: Path, capsys: Capture) -> None:
    table = people(5, seed=9).select(INPUTS)
    pyarrow.csv.write_csv(table, "plain.csv", pyarrow.csv.WriteOptions(quoting_style="none"))
    own = ["zip,account,note,price", "00123,12345678901234567890,NA,0.10", "01,99999999999999999999,None,=1+1"]
    own += ["02,3,-,1e3", "03,4,null,-1.5", '04,5,"a,""b""",TRUE']
    lines_of_both = zip(own, Path("plain.csv").read_text().splitlines(), strict=True)
    Path("new.csv").write_text("".join(f"{mine},{theirs}\n" for mine, theirs in lines_of_both))
    assert run(["predict", str(runs / "classes"), "new.csv", "-o", "out.csv"]) == 0
    assert capsys.readouterr().err == (
        'out.csv: a spreadsheet would run 1 cell as formulas, first in row 3 (the header is row 1), column "price": '
        "'=1+1'; --escape-formulas writes an apostrophe before them\nout.csv: 5 rows\n"
    )
    for before, after in zip(
        Path("new.csv").read_text().splitlines()[1:], Path("out.csv").read_text().splitlines()[1:], strict=True
    ):
        assert after.startswith(before + ",")
    lines(capsys, runs / "classes", "new.csv", "-o", "escaped.csv", "--escape-formulas")
    assert ",'=1+1," in Path("escaped.csv").read_text()
    lines(capsys, runs / "classes", "new.csv", "-o", "out.parquet")
    found = pq.read_table("out.parquet")
    assert found["zip"].to_pylist() == ["00123", "01", "02", "03", "04"]
    assert found["note"].to_pylist() == ["NA", "None", "-", "null", 'a,"b"']
    assert found["age"].type == pa.float64()
    assert "--escape-formulas is for -o" in fails(capsys, runs / "classes", "new.csv", "--escape-formulas")


def test_columns_of_any_type_pass_through(runs: Path, capsys: Capture) -> None:
    table = people(20, seed=9).select(INPUTS).append_column("parts", pa.array([{"a": [1], "b": "x"}] * 20))
    table = table.append_column("when", pa.array(range(20), pa.timestamp("us", "Asia/Tokyo")))
    pq.write_table(table, "rich.parquet")
    assert len(lines(capsys, runs / "classes", "rich.parquet")) == 20
    lines(capsys, runs / "classes", "rich.parquet", "-o", "out.parquet")
    assert pq.read_table("out.parquet").select(table.column_names).equals(table)


def test_values_that_the_model_does_not_know_are_said(
    runs: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onecycle.cli.prediction_rows.STREAMED_ROWS", 7)
    table = people(50, seed=9)
    town = ["ULM" if town == "Ulm" else town for town in table["town"].to_pylist()]
    pq.write_table(table.set_column(1, "town", pa.array(town)), "loud.parquet")
    said = (
        f'warning: loud.parquet: column "town": {town.count("ULM")} of 50 cells hold what the model does not know from '
        f"training, most often 'ULM' ({town.count('ULM')}); did you mean \"Ulm\"?\n"
    )
    for more in ([], ["-o", "out.csv"]):
        assert run(["predict", str(runs / "classes"), "loud.parquet", *more]) == 0
        assert said in capsys.readouterr().err


def test_a_warning_takes_the_place_of_the_progress_on_a_terminal(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(people(50, seed=9).set_column(1, "town", pa.array(["Atlantis"] * 50)), "unseen.parquet")
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    assert run(["predict", str(runs / "classes"), "unseen.parquet", "-o", "out.csv"]) == 0
    assert shown.getvalue().startswith('50 rows predicted\rwarning: unseen.parquet: column "town": ')
    assert shown.getvalue().endswith("\033[Kout.csv: 50 rows\n")
