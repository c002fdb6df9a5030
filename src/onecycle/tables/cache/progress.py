"""Progress of a conversion, for people who wait for it."""

import sys
import time
from typing import TextIO


class Progress:
    """Writes to `file`, by default stderr: in a terminal a line that moves, else a line now and then. None: nothing."""

    def __init__(self, file: TextIO | None = None, silent: bool = False) -> None:
        self._file = None if silent else file if file is not None else sys.stderr  # None without a console, too
        self._live = self._file is not None and self._file.isatty()
        self._every = 0.2 if self._live else 10.0  # seconds
        self._next = time.monotonic() + self._every
        self._shown = 0  # characters of the line that moves

    def say(self, text: str) -> None:
        """A line that stays."""
        self._write(text, "\n")
        self._shown = 0

    def update(self, what: str, done: int, total: int | None) -> None:
        """`done` rows of `total` (None where that is not known); shown a few times a second, or a minute."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._every
        of = f"{done:,} of {total:,} rows ({done / total:.0%})" if total else f"{done:,} rows"
        self._write(f"{what}: {of}", "" if self._live else "\n")

    def _write(self, text: str, end: str) -> None:
        if self._file is not None:
            wipe = "\r" + " " * self._shown + "\r" if self._shown else ""
            self._file.write(wipe + text + end)
            self._file.flush()
            self._shown = len(text) if self._live else 0
