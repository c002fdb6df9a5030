"""The folder of a run: its checkpoints, and the lock of the process that writes them."""

import os
import re
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from onecycle.core.archives import (
    MANIFEST,
    Content,
    check_replaceable,
    read_folder,
    read_state,
    remove_folder,
    write_folder,
)
from onecycle.core.files import Lock, describe_special, discard, read_json, sweep, unwritable, write_json
from onecycle.core.record import Record, decode_nonfinite
from onecycle.errors import FileError, OneCycleError, OutputError, SettingError, warn_user

KIND = "fit"  # of a checkpoint in a run
RECORD, SETTINGS = "record.json", "settings"  # written by the command line beside the checkpoints
REQUEST = ".request"  # the same as SETTINGS, from the start of a training until these are complete, or it ends
LOCK = ".lock"
_CHECKPOINTS, _FAILURE = "checkpoints", "failure.json"
_CLI_ONLY_SETTING = "lr_choice"  # in the record of `onecycle train`, but not of a fit in Python
_LOCK_TIMEOUT = 1.0  # seconds
_NAME = re.compile(r"\d{10,}(-epoch-\d+)?")  # of a checkpoint
_DAMAGED = ".damaged"


class RunFolder:
    """The checkpoints of a run, in `path/checkpoints`. Their names sort by age; anything else in it is left alone."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / _CHECKPOINTS

    # --- lock and owner ---------------------------------------------------------------------------------------------

    def lock(self) -> Lock:
        """Lock the run for this process, and remove what a killed process left half written.

        Raises SettingError, with the owner's process id, if another process has the lock, and OutputError if nothing
        can be written.
        """
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while (lock := self._try_lock()) is None and self.owner_pid() is None and time.monotonic() < deadline:
            time.sleep(0.02)  # another process is reading the owner's id, or has just got the lock
        if lock is None:
            owner = self.owner_pid() or "unknown"
            raise SettingError(f"{self.path}: in use by process {owner}; wait until it ends, or give another folder")
        try:
            lock.write_pid()
        except OutputError:
            lock.release()
            raise
        sweep(self.path)
        sweep(self.checkpoints)
        return lock

    def _try_lock(self) -> Lock | None:
        if self.checkpoints.is_symlink():
            raise OutputError(
                f"{self.checkpoints}: {describe_special(self.checkpoints)}; expected a folder; no link is followed "
                "inside of a run: remove it, or give another folder"
            )
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.checkpoints, error) from error
        return Lock.acquire(self.path / LOCK, wait=False)

    @contextmanager
    def locked(self) -> Generator[Lock]:
        """Lock the run for the block. Raises what `lock` raises."""
        lock = self.lock()
        try:
            yield lock
        finally:
            self.release(lock)

    def release(self, lock: Lock) -> None:
        """Release the lock, and remove the folder of checkpoints if it is empty."""
        with suppress(OSError):  # not empty
            self.checkpoints.rmdir()
        lock.release(remove=True)

    def owner_pid(self) -> int | None:
        """Return the id of the process that has the lock, or None."""
        return Lock.owner_pid(self.path / LOCK)

    def is_cli_run(self) -> bool:
        """Whether this is a run of `onecycle train`, by its settings or its record."""
        if self._has_cli_settings():
            return True
        try:
            return _CLI_ONLY_SETTING in Record.load(self.path / RECORD).settings
        except FileError:
            return False

    def is_python_run(self) -> bool:
        """Whether the checkpoints are those of a fit in Python, since the command line writes its settings too."""
        return bool(self.names()) and not self._has_cli_settings()

    def _has_cli_settings(self) -> bool:
        return any((self.path / name / MANIFEST).is_file() for name in (SETTINGS, REQUEST))

    # --- the error that the fit ended with --------------------------------------------------------------------------

    def write_failure(self, error: Exception) -> None:
        """Write the error that the fit ended with. Does nothing if that cannot be written."""
        text = str(error) if isinstance(error, OneCycleError) else f"{type(error).__name__}: {error}"
        with suppress(OutputError):
            write_json(self.path / _FAILURE, {"failure": text})

    def read_failure(self) -> str | None:
        """Return the error that the fit ended with, or None if there is none."""
        try:
            failure = read_json(self.path / _FAILURE)["failure"]
            return failure if isinstance(failure, str) else None
        except (OSError, ValueError, KeyError):
            return None

    def delete_failure(self) -> None:
        """Delete the error of an earlier fit."""
        with suppress(OSError):
            (self.path / _FAILURE).unlink(missing_ok=True)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the names of the checkpoints, the newest first."""
        if self.checkpoints.is_symlink() or not self.checkpoints.is_dir():
            return []
        with os.scandir(self.checkpoints) as entries:
            ours = [entry.name for entry in entries if _NAME.fullmatch(entry.name) and _is_folder(entry)]
        return sorted(ours, reverse=True)

    def strangers(self) -> list[str]:
        """Return what else is among the checkpoints, but for hidden files."""
        visible = {path.name for path in self.checkpoints.iterdir() if not path.name.startswith(".")}
        return sorted(visible - {*self.names()})

    def check_removable(self) -> None:
        """Raise OutputError, naming it, if something among the checkpoints was not written by onecycle."""
        for name in self.names():
            check_replaceable(self.checkpoints / name, KIND, replace=True)

    def write(self, name: str, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Write a checkpoint, atomically. Raises OutputError, naming it, if that fails."""
        write_folder(self.checkpoints / name, KIND, tensors, state, replace=True)

    def read(self, name: str) -> Content:
        """Return the state and tensors of a checkpoint, verified. Raises FileError if it is damaged."""
        return read_folder(self.checkpoints / name, KIND)

    def read_latest(self) -> tuple[str, Content]:
        """Return the name and content of the newest intact checkpoint; a warning names each damaged one.

        Raises FileError if there is none.
        """
        for name in self.names():
            try:
                return name, self.read(name)
            except FileError as error:
                warn_user(f"{error}; the next older checkpoint is used")
        raise FileError(f"{self.path}: holds no checkpoint that can be used; expected some in {self.checkpoints}")

    def read_latest_state(self) -> dict[str, Any] | None:
        """Return the state of the newest readable checkpoint without its tensors, or None if there is none."""
        for name in self.names():
            try:
                return read_state(self.checkpoints / name, KIND)
            except FileError:
                continue  # resuming will name it
        return None

    def read_best(self) -> dict[str, Any]:
        """Return the `name` of the best epoch's checkpoint so far and its `value`, as the newest checkpoint says."""
        best = (self.read_latest_state() or {}).get("best")
        return decode_nonfinite(best) if isinstance(best, dict) else {"name": None, "value": None}

    def quarantine_newer(self, name: str) -> None:
        """Hide the checkpoints newer than `name`, which are damaged: the fit resumes before them."""
        for newer in self.names():
            if newer > name:
                _rename(self.checkpoints / newer, f".{newer}{_DAMAGED}")

    def prune(self, keep: set[str]) -> None:
        """Remove all checkpoints but those in `keep`; a warning names each that onecycle did not write, and stays."""
        for name in self.names():
            if name not in keep:
                try:
                    remove_folder(self.checkpoints / name, KIND)
                except OutputError as error:
                    warn_user(f"{error}; it stays")


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir(follow_symlinks=False)


def _rename(path: Path, name: str) -> None:
    target = path.with_name(name)
    discard(target)
    try:
        path.rename(target)
    except OSError as error:
        raise OutputError(f"{path}: cannot be renamed ({error.strerror or error}); remove it by hand") from error
