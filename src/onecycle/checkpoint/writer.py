"""Writes checkpoints of a fit while it runs: its state is copied between two steps, a thread writes it."""

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.checkpoint.state import FitState, capture_state
from onecycle.core.checks import check_int
from onecycle.core.locks import Lock
from onecycle.errors import SettingError
from onecycle.train.callbacks.base import Callback
from onecycle.train.callbacks.monitor import Monitor
from onecycle.train.fit import Fit, Position
from onecycle.train.signals import FINISHED

_SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
_COUNTED = ("epoch", "batch", "step")
_UNITS = (*_SECONDS, *_COUNTED)
_EXPECTED = 'expected a number of batches, or text such as "1 epoch", "500 batches", "30 s" or "10 min"'


@dataclass(frozen=True)
class Interval:
    """So many epochs, batches or seconds; two of them are None."""

    epochs: int | None = None
    batches: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, given: Any) -> "Interval":
        """What `given` says. Raises SettingError for anything else."""
        if not isinstance(given, str):
            return cls(batches=check_int(given, "every", least=1))
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", given.lower())
        count, word = (float(found[1]), found[2] or "batch") if found else (0.0, "")
        unit = next((w for w in (word, word.removesuffix("s"), word.removesuffix("es")) if w in _UNITS), "")
        if count > 0 and unit in _SECONDS:
            return cls(seconds=count * _SECONDS[unit])
        if count >= 1 and count == int(count) and unit in _COUNTED:
            return cls(epochs=int(count)) if unit == "epoch" else cls(batches=int(count))
        raise SettingError(f"every is {given!r}; {_EXPECTED}")


@dataclass(frozen=True)
class CheckpointConfig:
    """Where a fit is kept, how often, and which checkpoints stay.

    `folder` is that of the run, `every` is a number of batches or text such as "1 epoch", "30 s". The newest `keep`
    stay, and where `best` names a number of the table (valid_loss, a metric) the one of the best epoch too. With
    `overwrite` the checkpoints of an earlier run in `folder` go. Raises SettingError for what cannot be used.
    """

    folder: str | Path
    every: int | str = "1 epoch"
    keep: int = 2
    best: str | None = None
    overwrite: bool = False
    lock: Lock | None = field(default=None, repr=False, compare=False)  # of the folder, where the caller has it already

    def __post_init__(self) -> None:
        check_int(self.keep, "keep", least=1)
        Interval.parse(self.every)

    @classmethod
    def from_arguments(cls, checkpoint: Any, every: int | str | None) -> "CheckpointConfig | None":
        """Return the config that a fit's `checkpoint` and `every` ask for. Raises SettingError if they conflict."""
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
        """The number that says which epoch is the best."""
        return None if self.best is None else Monitor(self.best, None, "Checkpoints")


class CheckpointWriter:
    """Keeps a fit as `wanted` says, and holds the lock of the run's folder. See `train/position.py: Saver`.

    `about` describes data, model and settings, so that a fit is not resumed with others; it may take a while, and is
    called once, by the thread. `extra` is written with every checkpoint.
    """

    def __init__(
        self,
        wanted: CheckpointConfig,
        fit: Fit,
        callbacks: Sequence[Callback],
        about: Callable[[], dict[str, Any]],
        lock: Lock,
        extra: dict[str, Any],
        is_new: bool = True,
    ) -> None:
        self._run, self._wanted, self._every = RunFolder(wanted.folder), wanted, Interval.parse(wanted.every)
        self._fit, self._callbacks, self._about, self._lock, self._extra = fit, callbacks, about, lock, extra
        self._old = {*self._run.names()} if is_new else set[str]()  # of an earlier fit: they go when a new one is there
        self._described: dict[str, Any] | None = None
        self._best: dict[str, Any] = {"name": None, "value": None} if is_new else self._run.best()
        self._thread = ThreadPoolExecutor(1, "onecycle-checkpoint")
        self._writing: Future[None] | None = None
        self._requested = False
        self._failure: Exception | None = None
        self._run.clear_failure()
        self._saved_at, self._saved_time = fit.iteration, time.monotonic()

    # --- what the loop asks ---------------------------------------------------------------------------------------

    def steps_until_due(self, fit: Fit) -> int:
        """So many steps that no checkpoint is missed."""
        batches = self._every.batches
        return 2**30 if batches is None else batches - fit.iteration % batches

    def is_due(self, fit: Fit) -> bool:
        """Whether it is time. While one checkpoint is written, the next one waits: the steps go on."""
        if self._writing is not None:
            if not self._writing.done():
                return False
            self._finish()
        every = self._every
        by_batches = every.batches is not None and fit.iteration // every.batches > self._saved_at // every.batches
        by_time = every.seconds is not None and time.monotonic() - self._saved_time >= every.seconds
        return self._requested or by_batches or by_time

    def request(self) -> None:
        """Keep the fit as soon as can be."""
        self._requested = True

    def save(self, position: Position) -> None:
        """Copy the state, and let the thread write it."""
        if position.iteration == self._saved_at and position.num_batch:
            return  # the same; at an epoch's end its row is new
        self._finish()
        self._requested = False
        self._saved_at, self._saved_time = position.iteration, time.monotonic()
        name = f"{position.iteration:010d}" + (f"-epoch-{position.epoch}" if not position.num_batch else "")
        self._rank(name, position)
        ended = self._fit.stop_reason
        values = {
            **self._extra,
            "best": dict(self._best),
            "ended": ended if position.epoch < self._fit.epochs else FINISHED,
        }
        state = capture_state(self._fit, self._callbacks, position)
        self._writing = self._thread.submit(self._write, name, state, values)

    def end_epoch(self, position: Position) -> None:
        """Keep the fit after every so many epochs, where it is time, and when it is over."""
        every, last = self._every.epochs, position.epoch >= self._fit.epochs or self._fit.stop_reason is not None
        if last or (every is not None and position.epoch % every == 0) or self.is_due(self._fit):
            self.save(position)

    def fail(self, error: Exception) -> None:
        """Let the run say what the fit ended with."""
        self._failure = error

    def close(self) -> None:
        """Wait for the thread, and let others have the folder. Raises OutputError where writing failed."""
        try:
            self._finish()
        except Exception as error:
            self._failure = self._failure or error
            raise
        finally:
            self._thread.shutdown()
            try:
                if self._failure is not None and {*self._run.names()} - self._old:  # else nothing to go on with
                    self._run.record_failure(self._failure)
            finally:
                if self._wanted.lock is None:
                    self._run.release(self._lock)

    # --- the thread's work ----------------------------------------------------------------------------------------

    def _write(self, name: str, state: FitState, values: dict[str, Any]) -> None:
        if self._described is None:
            self._described = self._about()
        self._run.write(name, state.tensors, {**state.values, **values, "about": self._described})
        self._old.discard(name)
        names = [name for name in self._run.names() if name not in self._old]
        self._run.prune({*names[: self._wanted.keep], values["best"]["name"]})

    def _finish(self) -> None:
        """Wait for the checkpoint that is being written. Raises OutputError where that failed."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _rank(self, name: str, position: Position) -> None:
        """Remember the checkpoint of the best epoch."""
        monitor = self._wanted.monitor
        if monitor is None or position.num_batch:
            return
        value = monitor.value(self._fit)
        if monitor.is_better(value, self._best["value"]):
            self._best = {"name": name, "value": value}


def acquire_run_lock(wanted: CheckpointConfig, start: Position | None = None) -> Lock:
    """The lock of a run's folder, for a new fit or for one that goes on from `start`.

    Raises SettingError where it holds checkpoints of an earlier fit that may not go, or of another one, and for a new
    fit where it holds a run of the command line.
    """
    run = RunFolder(wanted.folder)
    lock = wanted.lock or run.lock()
    names, words = run.names(), ""
    if start is None and wanted.lock is None and run.is_cli_run():  # which comes here with the lock
        run.release(lock)
        raise SettingError(
            f"{run.path} holds a run of `onecycle train`, whose files would be mixed with this fit's; "
            f"give another folder, such as {str(_free(run.path))!r}"
        )
    if start is None and names and not wanted.overwrite:
        words = (
            f"go on with learn.resume({str(run.path)!r}), give another folder, or ask for them to be replaced: "
            "checkpoint=Checkpoints(folder, overwrite=True)"
        )
    if start is not None and names and not names[0].startswith(f"{start.iteration:010d}"):
        words = "the fit that is to go on is not the one that is kept there any more; give another folder"
    if words:
        if wanted.lock is None:
            run.release(lock)
        raise SettingError(f"{run.path} holds checkpoints of an earlier fit: {words}")
    return lock


def _free(path: Path) -> Path:
    """The first of `path`-2, `path`-3, … that is not there."""
    named = path if path.name else path.absolute()  # "." has no name
    return next(found for number in count(2) if not (found := Path(f"{named}-{number}")).exists())
