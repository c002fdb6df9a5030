"""Progress of a fit: a live bar and a table in a terminal or notebook, plain rows in a log.

The methods of the displays are described in `core/display.py: Display`.
"""

import math
import os
import sys
from html import escape
from typing import Any, TextIO

from onecycle.core.display import Display, SilentDisplay
from onecycle.core.streams import unfiltered
from onecycle.errors import printable

_MIN_WIDTH = 11  # of a column of the table
_SMALL = 5e-5  # numbers below would be shown as 0.0000
_LARGE = 1e7  # numbers from here on are shown in scientific notation


def make_display(silent: bool | None = None, table: bool = True, file: TextIO | None = None) -> Display:
    """Return the display for the environment: HTML in a notebook, a live bar in a terminal, else plain rows.

    Args:
        silent: Show nothing.
        table: Show the table of the epochs; without it only the bar is shown, for the LR finder.
        file: Stream to write to; by default stdout, or the notebook.
    """
    if silent:
        return SilentDisplay()
    if file is None and _in_notebook():
        return NotebookDisplay(table)
    stream: TextIO | None = file if file is not None else sys.stdout  # None in some programs without a console
    if stream is None:
        return SilentDisplay()
    is_live = stream.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"
    return TerminalDisplay(stream, table) if is_live else LogDisplay(stream, table)


class LogDisplay:
    """Plain rows, one per epoch, for files and CI."""

    def __init__(self, file: TextIO, table: bool = True) -> None:
        self.file, self.table = file, table
        self._widths: list[int] = []

    def start(self, columns: list[str], steps: int, batches: int) -> None:
        columns = [printable(name, one_line=True) for name in columns]
        self._widths = [max(_MIN_WIDTH, len(name)) for name in columns]
        if self.table:
            self.message(self._line(columns))

    def update(self, epoch: int, batch: int, loss: float) -> None: ...

    def phase(self, name: str) -> None: ...

    def row(self, values: list[str]) -> None:
        if self.table:
            self.message(self._line([_shorten(value) for value in values]))

    def _line(self, values: list[str]) -> str:
        return "  ".join(value.ljust(width) for value, width in zip(values, self._widths, strict=True)).rstrip()

    def finish(self, reason: str | None) -> None:
        if reason and self.table:
            self.message(f"stopped: {reason}; the record so far and the model are kept")

    def message(self, text: str) -> None:
        print(printable(text), file=self.file, flush=True)


class TerminalDisplay(LogDisplay):
    """Rows like those of a log, with a live bar below them."""

    def __init__(self, file: TextIO, table: bool = True) -> None:
        super().__init__(file, table)
        self._bar: Any = None

    def start(self, columns: list[str], steps: int, batches: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        super().start(columns, steps, batches)
        self._batches, self._epochs = batches, -(-steps // batches)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("batches"),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]}"),
            console=Console(file=unfiltered(self.file), highlight=False),
            transient=True,  # only the table remains at the end
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("training", total=steps, loss="-")
        self._bar.start()

    def update(self, epoch: int, batch: int, loss: float) -> None:
        done, description = epoch * self._batches + batch, f"epoch {epoch} of {self._epochs}"
        self._bar.update(self._task, completed=done, loss=_format_loss(loss), description=description)

    def phase(self, name: str) -> None:
        self._bar.update(self._task, description=name)

    def finish(self, reason: str | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        super().finish(reason)

    def message(self, text: str) -> None:
        if self._bar is not None:  # above the bar
            self._bar.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
        else:
            super().message(text)


class NotebookDisplay:
    """An HTML table, with a progress bar below it while the fit runs."""

    def __init__(self, table: bool = True) -> None:
        self.table = table
        self._handle: Any = None
        self._rows: list[list[str]] = []
        self._columns: list[str] = []

    def start(self, columns: list[str], steps: int, batches: int) -> None:
        from IPython.display import HTML, display  # pyright: ignore[reportMissingModuleSource] -- there in a notebook

        self._html: Any = HTML
        self._columns, self._steps, self._batches = [printable(name) for name in columns], steps, batches
        self._handle = display(HTML(self._render(0, "starting")), display_id=True)

    def update(self, epoch: int, batch: int, loss: float) -> None:
        text = f"epoch {epoch}, batch {batch} of {self._batches}, loss {_format_loss(loss)}"
        self._show(self._render(epoch * self._batches + batch, text))

    def phase(self, name: str) -> None:
        self._show(self._render((len(self._rows) + 1) * self._batches, name))

    def row(self, values: list[str]) -> None:
        self._rows.append([_shorten(value) for value in values])

    def finish(self, reason: str | None) -> None:
        self._show(
            self._render_table() + (f"<p>stopped: {escape(printable(reason))}</p>" if reason and self.table else "")
        )

    def message(self, text: str) -> None:
        print(printable(text))

    def _show(self, html: str) -> None:
        if self._handle is not None:
            self._handle.update(self._html(html))

    def _render(self, done: int, text: str) -> str:
        total = max(1, self._steps)
        return f'{self._render_table()}<progress value="{done}" max="{total}"></progress> {text}'

    def _render_table(self) -> str:
        if not self.table:
            return ""
        head = "".join(f"<th>{escape(name)}</th>" for name in self._columns)
        body = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>" for row in self._rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _shorten(value: str) -> str:
    """Shorten a long number to the column's width: fewer decimals, or from 1e7 on scientific notation (1.2346e+07)."""
    digits, point, _ = value.partition(".")
    if len(value) <= _MIN_WIDTH or not point or "e" in value:
        return value
    number = float(value)
    return f"{number:.4e}" if abs(number) >= _LARGE else f"{number:.{_MIN_WIDTH - 1 - len(digits)}f}"


def _format_loss(loss: float) -> str:
    is_fixed = not loss or _SMALL <= abs(loss) < _LARGE or not math.isfinite(loss)
    return f"{loss:.4f}" if is_fixed else f"{loss:.4e}"


def _in_notebook() -> bool:
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return type(shell).__name__ == "ZMQInteractiveShell"
