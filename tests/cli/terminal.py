"""A stand-in for a terminal of 80 columns."""

import io
import re

import pytest

from onecycle.cli.app import run


class Terminal(io.StringIO):
    """A stream that rich takes for a terminal."""

    def isatty(self) -> bool:
        return True


def visible(text: str) -> str:
    """Return what a terminal shows of a text: without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def on_terminal(monkeypatch: pytest.MonkeyPatch, *args: str) -> str:
    """Return what a command that succeeds writes to a terminal of 80 columns."""
    out = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", out)
        patch.setenv("COLUMNS", "80")
        patch.setenv("TERM", "xterm-256color")
        for name in ("NO_COLOR", "CI", "TTY_COMPATIBLE", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        assert run([*args]) == 0
    return out.getvalue()
