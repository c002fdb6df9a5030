"""CSVLog: the table of a fit as a CSV file that grows while it runs."""

import csv
import io
from pathlib import Path
from typing import Any

from onecycle.core.files import unwritable, write_text
from onecycle.errors import OutputError, SettingError
from onecycle.train.callbacks.base import Callback
from onecycle.train.fit import Fit


class CSVLog(Callback):
    """Write a row an epoch to `path`, with the columns of the table; each row is on the disk before the next epoch.

    A file that exists is an error, before the first step, unless `append` adds to it (its columns must be the same) or
    `overwrite` replaces it. Further fits with the same CSVLog add their rows. A resumed fit takes away what was written
    after the checkpoint, and goes on from there.
    """

    def __init__(self, path: str | Path, append: bool = False, overwrite: bool = False) -> None:
        if append and overwrite:
            raise SettingError("CSVLog: append and overwrite are both asked for; choose one")
        self.path, self.append, self.overwrite = Path(path), append, overwrite
        self._text: str | None = None  # what is in the file; None before it is begun

    def on_epoch_begin(self, fit: Fit) -> None:
        """Begin the file. Raises OutputError where one is in the way, or is of another table."""
        if not fit.columns:
            return  # the finder makes no rows
        header = _line(fit.record.column_names)
        try:
            if self._text is None:
                self._begin(header)
        except OutputError:
            raise
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(self.path, error) from error
        if not (self._text or "").startswith(header):
            found = (self._text or "").partition("\n")[0]
            raise OutputError(
                f"{self.path}: its columns are {found!r}, the fit's are {header.rstrip()!r}; "
                "expected the same: give another path"
            )

    def _begin(self, header: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.append and self.path.exists() and (text := _read(self.path)):
            self._text = text
            if not text.endswith("\n"):
                self._add("\n")
            return
        try:
            with self.path.open("w" if self.append or self.overwrite else "x", encoding="utf-8", newline="") as file:
                file.write(header)
        except FileExistsError:
            raise OutputError(
                f"{self.path} exists; give another path, or ask for rows to be added to it (append=True) "
                "or for it to be replaced (overwrite=True)"
            ) from None
        self._text = header

    def on_epoch_end(self, fit: Fit) -> None:
        """Add the epoch's row. Raises OutputError where it cannot be written."""
        try:
            self._add(_line(fit.record.row()))
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _add(self, line: str) -> None:
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(line)
        self._text = (self._text or "") + line

    def state(self) -> dict[str, Any]:
        """What is in the file."""
        return {"text": self._text}

    def load_state(self, state: dict[str, Any]) -> None:
        """Let the file hold what it held then. Raises OutputError where it has become another one."""
        self._text = state["text"]
        if self._text is None:
            return
        try:
            if self.path.exists() and not _read(self.path).startswith(self._text):
                raise OutputError(
                    f"{self.path} is not the log of the fit that is resumed; put that one back, or move this one away"
                )
            write_text(self.path, self._text)
        except OutputError:
            raise
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(self.path, error) from error


def _line(values: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _read(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def _unusable(path: Path, error: OSError | UnicodeDecodeError) -> OutputError:
    if isinstance(error, UnicodeDecodeError):
        return OutputError(f"{path}: is no text in UTF-8; give another path")
    return unwritable(path, error)
