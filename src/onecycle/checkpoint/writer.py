"""Write checkpoints of a fit while it runs: the state is copied between two steps, and a thread writes it."""

import re
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.checkpoint.state import FitState, Surroundings, capture_state
from onecycle.core.checks import check_int
from onecycle.core.choices import Mode
from onecycle.core.files import Lock
from onecycle.core.record import encode_nonfinite
from onecycle.errors import OneCycleError, SettingError, warn_user
from onecycle.train.callbacks.base import Callback
from onecycle.train.callbacks.monitor import Monitor, warn_of_nan
from onecycle.train.fit import Fit, Position
from onecycle.train.signals import FINISHED
from onecycle.train.signature import Signature

_SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
_COUNTED = ("epoch", "batch", "step")
_UNITS = (*_SECONDS, *_COUNTED)
_EXPECTED = 'expected a number of batches, or text such as "1 epoch", "500 batches", "30 s" or "10 min"'
_NEVER = 2**30  # steps


@dataclass(frozen=True)
class Interval:
    """A checkpoint interval; exactly one field is set."""

    epochs: int | None = None
    batches: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, every: Any) -> "Interval":
        """Parse a number of batches, or text such as "1 epoch" or "30 s". Raises SettingError for anything else."""
        if not isinstance(every, str):
            return cls(batches=check_int(every, "every", least=1))
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", every.lower())
        number, word = (float(match[1]), match[2] or "batch") if match else (0.0, "")
        unit = next((w for w in (word, word.removesuffix("s"), word.removesuffix("es")) if w in _UNITS), "")
        if number > 0 and unit in _SECONDS:
            return cls(seconds=number * _SECONDS[unit])
        if number >= 1 and number == int(number) and unit in _COUNTED:
            return cls(epochs=int(number)) if unit == "epoch" else cls(batches=int(number))
        raise SettingError(f"every is {every!r}; {_EXPECTED}")


@dataclass(frozen=True)
class CheckpointConfig:
    """Where and how often a fit is saved, and which checkpoints stay.

    Args:
        folder: Folder of the run, which `Learner.resume` takes.
        every: Number of batches between checkpoints, or text such as "1 epoch", "500 batches", "30 s" or "10 min".
        keep: How many of the newest checkpoints stay.
        best: A number of the epoch's row (train_loss, valid_loss or the name of a metric): the checkpoint of its best
            epoch stays too.
        overwrite: Replace the checkpoints of an earlier run in `folder`, once the new fit has written one. What
            onecycle did not write stays.
        mode: "min" if the lowest value of `best` is the best, "max" if the highest. None for losses, and metrics of
            which it is known: the library's, and those with an attribute `higher_is_better`, such as torchmetrics'.
        lock: The lock of the folder, if the caller has it already.

    Raises:
        SettingError: If a value cannot be used.

    Example:
        >>> learn.fit_one_cycle(20, 1e-2, checkpoint=CheckpointConfig("runs/first", every="10 min", best="accuracy"))
    """

    folder: str | Path
    every: int | str = "1 epoch"
    keep: int = 2
    best: str | None = None
    overwrite: bool = False
    mode: Mode | None = None
    lock: Lock | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        Monitor(self.best or "", self.mode, "CheckpointConfig")  # checks the mode
        check_int(self.keep, "keep", least=1)
        Interval.parse(self.every)

    @classmethod
    def from_arguments(cls, checkpoint: Any, every: int | str | None) -> "CheckpointConfig | None":
        """Return the config for the `checkpoint` and `every` of a fit, or None.

        Args:
            checkpoint: A folder, a config, or None.
            every: Interval, if `checkpoint` is a folder.

        Raises:
            SettingError: If the two conflict, or are of another type.
        """
        if isinstance(checkpoint, str | Path) and checkpoint != "":
            return cls(checkpoint) if every is None else cls(checkpoint, every)
        if checkpoint is not None and not isinstance(checkpoint, CheckpointConfig):
            raise SettingError(
                f"checkpoint is {checkpoint!r}; expected the folder of a run, or CheckpointConfig(folder, ...)"
            )
        if every is not None and checkpoint is not None:
            raise SettingError(
                f"every must be passed inside CheckpointConfig: CheckpointConfig(folder, every={every!r})"
            )
        if every is not None:
            raise SettingError(f"every={every!r} needs checkpoint=, the folder of the run that the fit is saved in")
        return checkpoint

    @property
    def monitor(self) -> Monitor | None:
        """The monitor of the number that `best` names, or None."""
        return None if self.best is None else Monitor(self.best, self.mode, "CheckpointConfig")


class CheckpointWriter:
    """Writes the checkpoints of a fit; the `Checkpointer` of train/fit.py.

    `signature` is what a resumed fit is compared with. Its values may take a while, and are asked for by the thread.
    `extra` is written with every checkpoint. `lock`, that of the run, is released in the
    end unless `config` has it from the caller. `is_new` is False for a fit that is resumed or extended.
    `surroundings` is what else the steps depend on.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        fit: Fit,
        callbacks: Sequence[Callback],
        signature: Signature,
        lock: Lock,
        extra: dict[str, Any],
        is_new: bool = True,
        surroundings: Surroundings | None = None,
    ) -> None:
        self._run, self._config, self._every = RunFolder(config.folder), config, Interval.parse(config.every)
        self._fit, self._callbacks, self._signature, self._lock, self._extra = fit, callbacks, signature, lock, extra
        self._surroundings = surroundings
        self._old = {*self._run.names()} if is_new else set[str]()  # removed when the first new one is written
        self._best: dict[str, Any] = {"name": None, "value": None} if is_new else self._run.read_best()
        self._thread = ThreadPoolExecutor(1, "onecycle-checkpoint")
        self._pending: Future[None] | None = None
        self._is_requested = False
        self._failure: Exception | None = None
        self._run.delete_failure()
        self._saved_at, self._saved_time = fit.iteration, time.monotonic()

    # --- called by the loop -----------------------------------------------------------------------------------------

    def begin(self, fit: Fit) -> None:
        """Look at what is to be saved, before the first step. Warns and raises as `check`."""
        if self._surroundings is not None:
            self._surroundings.begin(fit)

    def begin_epoch(self, fit: Fit) -> None:
        """Note what the data are like before the first batch of an epoch."""
        if self._surroundings is not None:
            self._surroundings.begin_epoch(fit)

    def check(self, fit: Fit) -> None:
        """Warn of what cannot be resumed; raise SettingError if the optimizer's state cannot be saved exactly."""
        if self._surroundings is not None:
            self._surroundings.check(fit)

    def steps_until_due(self, fit: Fit) -> int:
        """Return how many steps may be taken before `is_due` must be asked again."""
        batches = self._every.batches
        return _NEVER if batches is None else batches - fit.iteration % batches

    def is_due(self, fit: Fit) -> bool:
        """Whether to save now. Not while a checkpoint is being written: the steps go on, and the next one waits."""
        if self._pending is not None:
            if not self._pending.done():
                return False
            self._finish_writing()
        every = self._every
        by_batches = every.batches is not None and fit.iteration // every.batches > self._saved_at // every.batches
        by_time = every.seconds is not None and time.monotonic() - self._saved_time >= every.seconds
        return self._is_requested or by_batches or by_time

    def request(self) -> None:
        """Save as soon as possible."""
        self._is_requested = True

    def save(self, position: Position) -> None:
        """Copy the state, which the thread then writes."""
        if position.iteration == self._saved_at and position.num_batch:
            return  # saved already; at the end of an epoch its row is new
        self._finish_writing()
        self._is_requested = False
        self._saved_at, self._saved_time = position.iteration, time.monotonic()
        name = f"{position.iteration:010d}" + (f"-epoch-{position.epoch}" if not position.num_batch else "")
        self._update_best(name, position)
        ended = self._fit.stop_reason if position.epoch < self._fit.epochs else FINISHED
        values = {**self._extra, "best": dict(self._best), "ended": ended, "changed": self._signature.changed()}
        state = capture_state(self._fit, self._callbacks, position, self._surroundings)
        self._pending = self._thread.submit(self._write, name, state, values)

    def end_epoch(self, position: Position) -> None:
        """Save at the end of an epoch if a checkpoint is due, or the fit is over."""
        every, is_last = self._every.epochs, position.epoch >= self._fit.epochs or self._fit.stop_reason is not None
        if is_last or (every is not None and position.epoch % every == 0) or self.is_due(self._fit):
            self.save(position)

    def fail(self, error: Exception) -> None:
        """Remember the error, to be written to failure.json."""
        self._failure = error

    def close(self) -> None:
        """Wait for the thread, and release the folder. Raises OutputError if writing failed."""
        try:
            self._finish_writing()
        except Exception as error:
            self._failure = self._failure or error
            raise
        finally:
            self._thread.shutdown()
            try:
                if self._failure is not None and {*self._run.names()} - self._old:  # else there is nothing to resume
                    self._run.write_failure(self._failure)
            finally:
                if self._config.lock is None:
                    self._run.release(self._lock)
        monitor, epochs = self._config.monitor, len(self._fit.record.epochs)
        if monitor is not None and epochs and self._best["name"] is None:
            warn_of_nan(f"CheckpointConfig's best={monitor.name!r}", epochs, f"of a best epoch are in {self._run.path}")

    def _finish_writing(self) -> None:
        """Wait for the checkpoint that is being written. Raises OutputError if that failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _update_best(self, name: str, position: Position) -> None:
        """Remember the checkpoint if its epoch is the best so far."""
        monitor = self._config.monitor
        if monitor is None or position.num_batch:
            return
        value = monitor.value(self._fit)
        if monitor.is_better(value, self._best["value"]):
            self._best = {"name": name, "value": value}

    # --- called by the thread ---------------------------------------------------------------------------------------

    def _write(self, name: str, state: FitState, values: dict[str, Any]) -> None:
        # encoded, since an optimizer's default may be infinite
        others = encode_nonfinite({**values, "about": self._signature()})
        self._run.write(name, state.tensors, {**state.values, **others})
        self._old.discard(name)
        newest = [name for name in self._run.names() if name not in self._old][: self._config.keep]
        self._run.prune({*newest, values["best"]["name"]})


def acquire_run_lock(config: CheckpointConfig, start: Position | None = None) -> Lock:
    """Return the lock of a run's folder, for a new fit or for one that continues from `start`.

    Raises SettingError if the folder holds checkpoints of an earlier fit that may not be replaced, or of another fit
    than the one that continues and, for a new fit, if it holds a run of the command line. Raises OutputError if one of
    the checkpoints to be replaced was not written by onecycle; other files are left alone, with a warning.
    """
    run = RunFolder(config.folder)
    lock = config.lock or run.lock()
    names, problem = run.names(), None
    if start is None and config.lock is None and run.is_cli_run():  # the command line passes its lock
        problem = (
            "holds a run of `onecycle train`, whose files would be mixed with this fit's; "
            f"give another folder, such as {str(_unused_path(run.path))!r}"
        )
    elif start is None and names and not config.overwrite:
        problem = (
            f"holds checkpoints of an earlier fit: resume it with learn.resume({str(run.path)!r}), give another "
            "folder, or ask for them to be replaced: checkpoint=CheckpointConfig(folder, overwrite=True)"
        )
    elif start is not None and names and not names[0].startswith(f"{start.iteration:010d}"):
        problem = "holds checkpoints of another fit than the one to continue; give another folder"
    try:
        if problem is not None:
            raise SettingError(f"{run.path} {problem}")
        if start is None:
            run.check_removable()
    except OneCycleError:
        if config.lock is None:
            run.release(lock)
        raise
    if config.overwrite and (strangers := run.strangers()):
        warn_user(f"{run.checkpoints}: {', '.join(strangers)}: not of onecycle; left alone")
    return lock


def _unused_path(path: Path) -> Path:
    """Return the first of `path`-2, `path`-3, … that does not exist."""
    named = path if path.name else path.absolute()  # "." has no name
    return next(other for number in count(2) if not (other := Path(f"{named}-{number}")).exists())
