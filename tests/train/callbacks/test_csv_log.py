"""The table as a file that grows, and that never takes the place of another."""

import csv
from pathlib import Path
from typing import Any

import pytest

from conftest import Net, toy_arrays
from onecycle import Callback, CSVLog, DataBunch, Learner, accuracy, error_rate
from onecycle.errors import OutputError, SettingError


def learner(data: DataBunch, *callbacks: Callback, **options: Any) -> Learner:
    return Learner(data, Net(), **{"metrics": accuracy, "silent": True, **options}, callbacks=list(callbacks))


def read(path: str) -> list[list[str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_it_is_the_table(toy: DataBunch, here: Path):
    learn = learner(toy, CSVLog("runs/log.csv"))
    learn.fit(3, 1e-3)
    assert read("runs/log.csv") == [learn.recorder.record.column_names, *learn.recorder.record.rows()]


def test_each_row_is_there_when_its_epoch_ends(toy: DataBunch, here: Path):
    lengths = []

    class Reads(Callback):
        def on_batch_end(self, fit: Any) -> None:
            if fit.num_batch == 0:
                lengths.append(len(read("log.csv")))

    learner(toy, CSVLog("log.csv"), Reads()).fit(3, 1e-3)
    assert lengths == [1, 2, 3]


def test_a_file_that_exists_is_left_alone(toy: DataBunch, here: Path):
    Path("log.csv").write_text("precious")
    learn = learner(toy, CSVLog("log.csv"))
    with pytest.raises(OutputError, match=r"log.csv exists; give another path, or set append=True .*overwrite=True"):
        learn.fit(1, 1e-3)
    assert not learn.recorder.losses  # not a step
    assert Path("log.csv").read_text() == "precious"


def test_overwriting_and_appending(toy: DataBunch, here: Path):
    Path("log.csv").write_text("precious")
    learner(toy, CSVLog("log.csv", overwrite=True)).fit(2, 1e-3)
    learner(toy, CSVLog("log.csv", append=True)).fit(1, 1e-3)
    learner(toy, CSVLog("new.csv", append=True)).fit(1, 1e-3)
    assert [row[0] for row in read("log.csv")] == ["epoch", "0", "1", "0"]
    assert [row[0] for row in read("new.csv")] == ["epoch", "0"]


def test_a_last_line_without_an_end_gets_one(toy: DataBunch, here: Path):
    learner(toy, CSVLog("log.csv")).fit(1, 1e-3)
    text = Path("log.csv").read_text()
    Path("log.csv").write_text(text.rstrip())
    learner(toy, CSVLog("log.csv", append=True)).fit(1, 1e-3)
    assert len(read("log.csv")) == 3


@pytest.mark.parametrize("overwrite", [False, True])
def test_further_fits_add_rows(toy: DataBunch, here: Path, overwrite: bool):
    learn = learner(toy, CSVLog("log.csv", overwrite=overwrite))
    learn.fit(1, 1e-3)
    learn.lr_find(num_it=20)
    learn.fit_one_cycle(2, 1e-3)
    assert [row[0] for row in read("log.csv")] == ["epoch", "0", "0", "1"]
    learn.metrics = [accuracy, error_rate]
    with pytest.raises(
        OutputError, match=r"log.csv: its columns are 'epoch.*accuracy,time', the fit's are 'epoch,.*error"
    ):
        learn.fit(1, 1e-3)


def test_appending_to_another_table(toy: DataBunch, here: Path):
    Path("log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(OutputError, match="log.csv: its columns are 'a,b', the fit's are"):
        learner(toy, CSVLog("log.csv", append=True)).fit(1, 1e-3)
    Path("log.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(OutputError, match="log.csv: not UTF-8 text; give another path"):
        learner(toy, CSVLog("log.csv", append=True)).fit(1, 1e-3)


def test_the_finder_writes_nothing(toy: DataBunch, here: Path):
    learner(toy, CSVLog("log.csv")).lr_find(num_it=20)
    assert not Path("log.csv").exists()


def test_where_nothing_is_validated_and_names_need_quotes(here: Path):
    learn = learner(DataBunch.create(toy_arrays(), bs=16), CSVLog("log.csv"))
    learn.fit(1, 1e-3)
    assert read("log.csv")[1] == learn.recorder.record.row()
    assert read("log.csv")[1][2] == "#na#"


def test_a_place_that_cannot_be_written(toy: DataBunch, here: Path):
    Path("folder").mkdir()
    with pytest.raises(OutputError, match=r"folder: cannot be written \(a folder\)"):
        learner(toy, CSVLog("folder", overwrite=True)).fit(1, 1e-3)
    with pytest.raises(SettingError, match="CSVLog: both append and overwrite are set; choose one"):
        CSVLog("log.csv", append=True, overwrite=True)


def test_a_log_of_another_fit_is_not_resumed(here: Path):
    Path("log.csv").write_text("epoch\n0\n1\n")
    CSVLog("log.csv").load_state({"text": "epoch\n0\n"})
    assert Path("log.csv").read_text() == "epoch\n0\n"  # what came after the checkpoint comes again
    with pytest.raises(OutputError, match="log.csv is not the log of the fit that is resumed; put that one back"):
        CSVLog("log.csv").load_state({"text": "epoch\n7\n"})
    assert Path("log.csv").read_text() == "epoch\n0\n"
    CSVLog("moved/log.csv").load_state({"text": "epoch\n7\n"})
    assert Path("moved/log.csv").read_text() == "epoch\n7\n"


@pytest.mark.parametrize("options", [{}, {"append": True}, {"overwrite": True}])
@pytest.mark.parametrize("target", ["thesis.csv", "missing"])
def test_a_link_is_not_written_through(toy: DataBunch, here: Path, options: dict[str, bool], target: str):
    Path("thesis.csv").write_text("years of work\n")
    Path("log.csv").symlink_to(target)
    log = CSVLog("log.csv", **options)
    if options.get("overwrite") or (options and target == "missing"):
        learner(toy, log).fit(1, 1e-3)
        assert len(read("log.csv")) == 2
        assert not Path("log.csv").is_symlink()
    else:
        with pytest.raises(OutputError, match=r"log\.csv exists|a link to thesis\.csv; no link is followed here"):
            learner(toy, log).fit(1, 1e-3)
    assert Path("thesis.csv").read_text() == "years of work\n"
    assert not Path("missing").exists()
