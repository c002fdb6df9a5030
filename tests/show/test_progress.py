"""The displays: what a log, a terminal and a notebook are given."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from conftest import Net
from onecycle import DataBunch, Learner, accuracy
from onecycle.core.display import SilentDisplay
from onecycle.show.progress import LogDisplay, NotebookDisplay, TerminalDisplay, make_display

SCRIPT = """
import torch, onecycle
data = onecycle.DataBunch.create((torch.rand(6400, 4), torch.arange(6400) % 2), (torch.rand(64, 4), torch.arange(64) % 2))
learn = onecycle.Learner(data, onecycle.MLP(4, 2), metrics=onecycle.accuracy)
learn.lr_find()
learn.fit_one_cycle(2, 1e-3)
"""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_has_plain_rows(toy: DataBunch, capsys: pytest.CaptureFixture[str]):
    Learner(toy, Net(), metrics=accuracy).fit(2, 1e-3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    assert len(lines) == 3
    for number, line in enumerate(lines[1:]):
        assert re.fullmatch(rf"{number} +\d\.\d{{6}} +\d\.\d{{6}} +\d\.\d{{6}} +00:0\d", line)


def test_long_losses_leave_the_columns_in_line():
    values = [113513059188972.59375, 1e7, 9999999.5, -9999999.5, 54321.123456, 0.5, float("nan"), float("inf")]
    file = io.StringIO()
    display = LogDisplay(file)
    display.start(["epoch", "train_loss", "time"], 1, 1)
    for value in values:
        display.row(["0", f"{value:.6f}", "00:00"])
    head, *lines = file.getvalue().splitlines()
    assert {line.index("00:00") for line in lines} == {head.index("time")}
    shown = ["1.1351e+14", "1.0000e+07", "9999999.500", "-9999999.50", "54321.12346", "0.500000", "nan", "inf"]
    assert [line.split()[1] for line in lines] == shown


def test_a_long_loss_beside_the_bar():
    display = TerminalDisplay(Terminal())
    display.start(["epoch"], 10, 10)
    display.update(0, 5, 113513059188972.59375)
    assert display._bar.tasks[0].fields["loss"] == "1.1351e+14"
    display.update(0, 6, 0.5)
    assert display._bar.tasks[0].fields["loss"] == "0.5000"
    display.finish(None)


def test_silent_is_silent(toy: DataBunch, capsys: pytest.CaptureFixture[str]):
    learn = Learner(toy, Net(), silent=True)
    learn.fit(1, 1e-3)
    learn.lr_find()
    assert capsys.readouterr() == ("", "")


def test_where_we_run_decides(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CI")
    monkeypatch.setenv("TERM", "xterm")
    assert type(make_display(file=Terminal())) is TerminalDisplay
    assert type(make_display(file=io.StringIO())) is LogDisplay
    assert type(make_display(silent=True)) is SilentDisplay
    monkeypatch.setenv("CI", "true")
    assert type(make_display(file=Terminal())) is LogDisplay
    monkeypatch.delenv("CI")
    monkeypatch.setenv("TERM", "dumb")
    assert type(make_display(file=Terminal())) is LogDisplay
    monkeypatch.setattr(sys, "stdout", None)
    assert type(make_display()) is SilentDisplay


@pytest.mark.slow
def test_a_real_terminal_shows_a_bar_and_is_left_with_the_table():
    reader, writer = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    environment.pop("CI", None)
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=writer, stderr=writer, env=environment)
    os.close(writer)
    shown = b""
    while True:
        try:
            piece = os.read(reader, 65536)
        except OSError:  # how a terminal says that the other side is gone
            break
        if not piece:
            break
        shown += piece
    assert process.wait() == 0
    text = shown.decode()
    assert "100/100 batches" in text or "batches" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert "LR Finder is complete" in plain
    assert plain.count("train_loss") == 1
    assert re.search(r"1 +\d\.\d{6} +\d\.\d{6} +\d\.\d{6} +00:0\d", plain)
    assert "\x1b[?25h" in text  # the cursor is visible again


def test_a_terminal_display_closes_its_bar_after_an_error():
    display = TerminalDisplay(Terminal())
    display.start(["epoch"], 10, 10)
    display.update(0, 5, 0.5)
    display.phase("validating")
    display.finish("interrupted")
    display.finish(None)
    assert "stopped: interrupted; the record so far and the model are kept" in display.file.getvalue()


def test_a_notebook_gets_html(monkeypatch: pytest.MonkeyPatch):
    shown: list[str] = []

    class Handle:
        def update(self, html) -> None:
            shown.append(html.data)

    import IPython.display

    monkeypatch.setattr(IPython.display, "display", lambda html, display_id: shown.append(html.data) or Handle())
    display = NotebookDisplay()
    display.start(["epoch", "<lambda>"], 20, 10)
    display.update(0, 5, 0.25)
    assert '<progress value="5" max="20">' in shown[-1]
    display.row(["0", "0.250000"])
    display.row(["1", "123456789.250000"])
    display.finish(None)
    assert shown[-1] == (
        "<table><thead><tr><th>epoch</th><th>&lt;lambda&gt;</th></tr></thead>"
        "<tbody><tr><td>0</td><td>0.250000</td></tr><tr><td>1</td><td>1.2346e+08</td></tr></tbody></table>"
    )


def test_names_do_nothing_to_the_table(capsys: pytest.CaptureFixture[str]):
    display = LogDisplay(sink := io.StringIO())
    display.start(["epoch", "a\x1b[2J\nb"], 1, 1)
    display.message("it\x9bends")
    assert sink.getvalue() == "epoch        a\\x1b[2J\\nb\nit\\x9bends\n"
    NotebookDisplay().message("\x1b]0;owned\x07")
    assert capsys.readouterr().out == "\\x1b]0;owned\\x07\n"
