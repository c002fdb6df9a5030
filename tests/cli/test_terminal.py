"""Tables: aligned text for a pipe, and all of the text on a terminal, however narrow."""

import pytest
from rich.cells import cell_len

from cli.terminal import Terminal, visible
from onecycle.cli.terminal import plain_lines, print_table

ROWS = [["a", "1", "some words"], ["大阪", "22", "x"], ["a long name", "", "y"]]


def test_plain_lines_are_aligned_by_terminal_cells() -> None:
    assert plain_lines(ROWS, ["name", "n", "what"], right=(1,), indent=1) == [
        " name          n  what",
        " a             1  some words",
        " 大阪         22  x",
        " a long name      y",
    ]


def test_a_pipe_gets_a_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([["line\nbreak", "word " * 50]])
    assert capsys.readouterr().out == f"line break  {' '.join(['word'] * 50)}\n"


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_terminal_gets_all_of_the_text(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    out = Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    words = [f"w{i}" for i in range(12)]
    print_table([[f"name {word}", word, " ".join(words)] for word in words], ["name", "n", "words"], indent=2)
    lines = visible(out.getvalue()).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert all(out.getvalue().count(word) >= len(words) for word in words)
