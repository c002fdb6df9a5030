"""The folder of a run: its checkpoints, and the lock of the process that writes them."""

import shutil
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from onecycle.core.files import unwritable, verify_checksum, with_checksum, write_text
from onecycle.core.folders import MANIFEST, read_folder, read_state, write_folder
from onecycle.core.locks import Lock
from onecycle.core.record import Record
from onecycle.errors import FileError, OneCycleError, OutputError, SettingError

KIND = "fit"  # what a checkpoint of a run holds
RECORD, SETTINGS = "record.json", "settings"  # what the command line writes beside the checkpoints
_CHECKPOINTS, _LOCK, _FAILURE = "checkpoints", ".lock", "failure.json"
_ONLY_COMMAND = "lr_choice"  # a setting that no fit writes into its record, only `onecycle train` does
_PATIENCE = 1.0  # seconds
_DAMAGED, _REMOVED, _TEMPORARY = ".damaged", ".removed", ".tmp"


class RunFolder:
    """The checkpoints of a run, in `path/checkpoints`. Their names sort by age; hidden folders are none."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / _CHECKPOINTS

    def lock(self) -> Lock:
        """Take the run for this process; the system frees it when the process ends, however it ends.

        Raises SettingError, with the owner's process id, where another one has it, and OutputError where nothing can be
        written.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.checkpoints, error) from error
        lock = Lock.acquire(self.path / _LOCK, wait=False)
        patience = time.monotonic() + _PATIENCE
        while lock is None and self.owner() is None and time.monotonic() < patience:
            time.sleep(0.02)  # somebody looks who has it, or has just got it
            lock = Lock.acquire(self.path / _LOCK, wait=False)
        if lock is None:
            raise SettingError(
                f"{self.path}: in use by process {self.owner() or 'unknown'}; wait until it ends, or give another one"
            )
        lock.write_pid()
        for path in self.checkpoints.glob(".*"):
            if path.suffix in (_REMOVED, _TEMPORARY):  # of a process that was killed: no live one has the lock
                shutil.rmtree(path, ignore_errors=True)
        return lock

    def release(self, lock: Lock) -> None:
        """Let others have the run; a folder in which nothing was written goes."""
        lock.release(remove=True)
        with suppress(OSError):  # not empty
            self.checkpoints.rmdir()

    def owner(self) -> int | None:
        """The id of the process that writes to the run now, or None."""
        return Lock.holder(self.path / _LOCK)

    def is_cli_run(self) -> bool:
        """Whether it holds a run of `onecycle train`: what that was asked for, or its record."""
        if (self.path / SETTINGS / MANIFEST).is_file():
            return True
        try:
            return _ONLY_COMMAND in Record.load(self.path / RECORD).settings
        except FileError:
            return False

    def is_python_run(self) -> bool:
        """Whether its checkpoints are those of a fit in Python: the command line keeps none without its settings."""
        return bool(self.names()) and not (self.path / SETTINGS / MANIFEST).is_file()

    def record_failure(self, error: Exception) -> None:
        """Write down what the fit ended with, for whoever asks what became of it. Where that fails, nothing is said."""
        words = str(error) if isinstance(error, OneCycleError) else f"{type(error).__name__}: {error}"
        with suppress(OutputError):
            write_text(self.path / _FAILURE, with_checksum({"failure": words}))

    def clear_failure(self) -> None:
        """The fit goes on, or a new one begins."""
        with suppress(OSError):
            (self.path / _FAILURE).unlink(missing_ok=True)

    def failure(self) -> str | None:
        """What the fit ended with; None where it did not, or that is not known."""
        try:
            return str(verify_checksum((self.path / _FAILURE).read_bytes().decode())["failure"])
        except (OSError, ValueError, KeyError, RecursionError):
            return None

    def names(self) -> list[str]:
        """The names of the checkpoints, the newest first."""
        if not self.checkpoints.is_dir():
            return []
        return sorted((path.name for path in self.checkpoints.iterdir() if path.name[:1].isdigit()), reverse=True)

    def read(self, name: str) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
        """The state and tensors of a checkpoint, verified. Raises FileError where it is damaged."""
        return read_folder(self.checkpoints / name, KIND)

    def read_latest_state(self) -> dict[str, Any] | None:
        """What the newest checkpoint says of the fit, its tensors not looked at; None where there is none."""
        for name in self.names():
            try:
                return read_state(self.checkpoints / name, KIND)
            except FileError:
                continue  # resuming will name it
        return None

    def newest(self) -> tuple[str, dict[str, Any], dict[str, dict[str, Tensor]]]:
        """The name, state and tensors of the newest checkpoint that is whole; a warning names each that is not.

        Raises FileError where there is none.
        """
        for name in self.names():
            try:
                return name, *self.read(name)
            except FileError as error:
                warnings.warn(f"{error}; the next older checkpoint is used", stacklevel=4)
        raise FileError(f"{self.path}: holds no checkpoint that can be used; expected some in {self.checkpoints}")

    def best(self) -> dict[str, Any]:
        """The `name` of the checkpoint of the best epoch so far and its `value`, as the newest one has them."""
        found = (self.read_latest_state() or {}).get("best")
        return dict(found) if isinstance(found, dict) else {"name": None, "value": None}

    def write(self, name: str, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Write a checkpoint, whole or not at all. Raises OutputError, naming it, where that fails."""
        write_folder(self.checkpoints / name, KIND, tensors, state, replace=True)

    def quarantine_newer(self, newest: str) -> None:
        """Rename the checkpoints that are newer than `newest`: they are damaged, and the run goes on before them."""
        for name in self.names():
            if name > newest:
                _rename(self.checkpoints / name, f".{name}{_DAMAGED}")

    def prune(self, names: set[str]) -> None:
        """Remove all other checkpoints; one that cannot be removed stays."""
        for name in self.names():
            if name not in names:
                removed = _rename(self.checkpoints / name, f".{name}{_REMOVED}")  # so that no half of it is found
                shutil.rmtree(removed, ignore_errors=True)


def _rename(path: Path, name: str) -> Path:
    target = path.with_name(name)
    shutil.rmtree(target, ignore_errors=True)
    try:
        return path.rename(target)
    except OSError as error:
        raise OutputError(f"{path}: cannot be renamed ({error.strerror or error}); remove it by hand") from error
