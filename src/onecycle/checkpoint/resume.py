"""From the newest whole checkpoint of a run to a fit that goes on."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.checkpoint.state import FitState, diff_descriptions, position_of, record_of
from onecycle.checkpoint.writer import CheckpointConfig
from onecycle.core.locks import Lock
from onecycle.core.record import Record
from onecycle.errors import FileError, SettingError
from onecycle.optim.schedules import Schedule, schedule_from_dict
from onecycle.train.fit import Position
from onecycle.train.signals import FINISHED, RESUMABLE

_SHOWN = 4  # differences that a message names


@dataclass(frozen=True)
class ResumePoint:
    """What a checkpoint says of a fit; the lock of its run is held."""

    name: str  # of the checkpoint
    state: FitState
    lock: Lock
    checkpoints: CheckpointConfig
    epochs: int
    schedule: Schedule
    record: Record
    position: Position
    wd: float | list[float]
    first_epoch: int
    ended: str | None  # why the fit is over; None where it was killed

    @classmethod
    def latest(
        cls, folder: str | Path, about: Callable[[], dict[str, Any]], callbacks: list[str], batches: int, groups: int
    ) -> "ResumePoint":
        """The newest checkpoint in the folder of a run, for a learner that `about` describes, which may take a while.

        An epoch has so many batches there, and the model so many layer groups.

        Raises FileError where there is none that is whole, SettingError where the run is in use, or where data, model
        or settings are not those of the run, by the names of what differs.
        """
        run = RunFolder(folder)
        if not run.names():
            raise FileError(f"{run.path}: holds no checkpoints; expected the folder that a fit had as checkpoint=")
        lock = run.lock()
        try:
            name, values, tensors = run.newest()
            state = FitState(tensors, values)
            kept = cls._of(name, state, lock, run)
            _check_same(run.path, values, about(), callbacks)
            if kept.position.num_batch > batches or len(kept.schedule(0)[0]) != groups:
                raise FileError(f"{run.checkpoints / name}: not the checkpoint of a fit of {batches:,} batches")
            run.quarantine_newer(name)
        except BaseException:
            run.release(lock)
            raise
        return kept

    def release(self) -> None:
        """Release the lock of the run."""
        RunFolder(self.checkpoints.folder).release(self.lock)

    def progress_message(self, batches: int) -> str:
        """In words where the fit goes on; an epoch has so many batches."""
        done, total = self.position.iteration, self.epochs * batches
        if self.position.epoch >= self.epochs or self.ended not in (None, *RESUMABLE):
            return f"{self.checkpoints.folder}: {self.ended or FINISHED} after {done:,} batches; it is loaded"
        return f"{self.checkpoints.folder}: goes on after {done:,} of {total:,} batches"

    @classmethod
    def _of(cls, name: str, state: FitState, lock: Lock, run: RunFolder) -> "ResumePoint":
        values = state.values
        try:
            _check_values(values)
            wanted = {key: values["checkpoints"][key] for key in ("every", "keep", "best")}
            return cls(
                name=name,
                state=state,
                lock=lock,
                checkpoints=CheckpointConfig(run.path, **wanted),
                epochs=int(values["epochs"]),
                schedule=schedule_from_dict(values["schedule"]),
                record=record_of(state),
                position=position_of(state),
                wd=values["wd"],
                first_epoch=int(values["first_epoch"]),
                ended=values["ended"],
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FileError(f"{run.checkpoints / name}: not the checkpoint of a fit ({error})") from error


def _check_values(values: dict[str, Any]) -> None:
    """Raises ValueError where parts of a state are of another kind than onecycle writes."""
    at, callbacks, best = values["position"], values["callbacks"], values["best"]
    counts = (at["epoch"], at["num_batch"], at["iteration"], values["first_epoch"], values["epochs"])
    if not all(type(count) is int and 0 <= count < 2**62 for count in counts):
        raise ValueError("position, epochs or first_epoch are no counts")
    if type(at["seconds"]) not in (int, float):
        raise ValueError("position.seconds is no number")
    if not (isinstance(callbacks, list) and all(isinstance(kept["name"], str) for kept in callbacks)):
        raise ValueError("callbacks is no list of callbacks")
    if not all(isinstance(kept["values"], dict) for kept in callbacks):
        raise ValueError("a callback's values are no object")
    if not (isinstance(best["name"], str | None) and isinstance(best["value"], int | float | None)):
        raise ValueError("best is no epoch")
    if not (
        isinstance(values.get("about", {}), dict) and all(isinstance(part, dict) for part in values["about"].values())
    ):
        raise ValueError("about is no description")


def _check_same(run: Path, values: dict[str, Any], about: dict[str, Any], callbacks: list[str]) -> None:
    found: dict[str, Any] = values.get("about", {})
    machine = about.pop("machine", {})
    words = diff_descriptions(found, about)
    missing = [kept["name"] for kept in values["callbacks"]]
    for name in callbacks:
        if name in missing:
            missing.remove(name)
    words += [f"callbacks: {name}, which is not here" for name in missing]
    if words:
        rest = f"; and {len(words) - _SHOWN:,} more" if len(words) > _SHOWN else ""
        raise SettingError(
            f"{run} is the run of another fit: {'; '.join(words[:_SHOWN])}{rest}; expected the same data, model, "
            "settings and callbacks"
        )
    if other := diff_descriptions({"machine": found.get("machine", {})}, {"machine": machine}):
        warnings.warn(f"{run}: {'; '.join(other)}; the fit goes on, but not bit for bit as there", stacklevel=4)
