"""CSVLog: the table of a fit as a CSV file that grows while the fit runs."""

import csv
import io
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onecycle.core.files import open_unlinked, unwritable, write_text
from onecycle.errors import OutputError, SettingError
from onecycle.train.callbacks.base import Callback
from onecycle.train.fit import Fit


class CSVLog(Callback):
    """Write the table of the fit to a CSV file, one row per epoch, as the epochs end.

    Further fits with the same CSVLog append their rows. A resumed fit removes the rows that were written after the
    checkpoint, and continues from there.

    Args:
        path: The file. If it exists, the fit fails before its first step, unless `append` or `overwrite` is set.
        append: Append to an existing file, which must have the same columns.
        overwrite: Replace an existing file.

    Raises:
        SettingError: If both `append` and `overwrite` are set.
        OutputError: During a fit, if the file exists, has other columns or cannot be written.

    Example:
        >>> learn.fit_one_cycle(5, 1e-2, callbacks=CSVLog("log.csv"))
    """

    def __init__(self, path: str | Path, append: bool = False, overwrite: bool = False) -> None:
        if append and overwrite:
            raise SettingError("CSVLog: both append and overwrite are set; choose one")
        self.path, self.append, self.overwrite = Path(path), append, overwrite
        self._text: str | None = None  # the content of the file; None before the first fit

    def resume_settings(self) -> dict[str, Any]:
        """Return nothing: the file is checked by `load_state`."""
        return {}

    def on_epoch_begin(self, fit: Fit) -> None:
        """Create or open the file in the first epoch. Raises OutputError if it exists or has other columns."""
        if not fit.columns:
            return  # the LR finder has no rows
        header = _csv_line(fit.record.column_names)
        with _file_errors(self.path):
            if self._text is None:
                self._text = self._open(header)
        if not self._text.startswith(header):
            columns = self._text.partition("\n")[0]
            raise OutputError(
                f"{self.path}: its columns are {columns!r}, the fit's are {header.rstrip()!r}; "
                "expected the same: give another path"
            )

    def _open(self, header: str) -> str:
        """Create the file with its header, or open it to append; return its content."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.append and self.path.exists() and (text := _read(self.path)):
            return text if text.endswith("\n") else self._append("\n", text)
        try:
            if self.append or self.overwrite:
                write_text(self.path, header)
            else:
                with self.path.open("x", encoding="utf-8", newline="") as file:  # follows no link
                    file.write(header)
        except FileExistsError:
            raise OutputError(
                f"{self.path} exists; give another path, or set append=True to add rows or overwrite=True to replace it"
            ) from None
        return header

    def on_epoch_end(self, fit: Fit) -> None:
        """Append the row of the epoch. Raises OutputError if it cannot be written."""
        with _file_errors(self.path):
            self._text = self._append(_csv_line(fit.record.row()), self._text or "")

    def _append(self, line: str, text: str) -> str:
        with open(self.path, "a", encoding="utf-8", newline="", opener=open_unlinked) as file:
            file.write(line)
        return text + line

    def state(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {"text": self._text}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the content of the file. Raises OutputError if the file belongs to another fit."""
        self._text = state["text"]
        if self._text is None:
            return
        with _file_errors(self.path):
            if self.path.exists() and not _read(self.path).startswith(self._text):
                raise OutputError(
                    f"{self.path} is not the log of the fit that is resumed; put that one back, or move this one away"
                )
            write_text(self.path, self._text)


def _csv_line(values: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _read(path: Path) -> str:
    with open(path, encoding="utf-8", newline="", opener=open_unlinked) as file:
        return file.read()


@contextmanager
def _file_errors(path: Path) -> Generator[None]:
    """Raise errors of the file system, and of bytes that are not UTF-8, as OutputError."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise unwritable(path, error) from error
    except UnicodeDecodeError as error:
        raise OutputError(f"{path}: not UTF-8 text; give another path") from error
