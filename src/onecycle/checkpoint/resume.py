"""Find the newest intact checkpoint of a run, and check that it fits the learner that resumes it."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.checkpoint.state import FitState
from onecycle.checkpoint.writer import CheckpointConfig
from onecycle.core.archives import describe_folder
from onecycle.core.files import Lock
from onecycle.core.record import Record
from onecycle.errors import FileError, SettingError, printable
from onecycle.optim.schedules import Schedule, schedule_from_dict
from onecycle.train.fit import Position
from onecycle.train.signals import FINISHED, RESUMABLE

_RESTORED = (("model", "frozen"), ("optimizer", "groups"))  # in descriptions of earlier versions
_MAX_SHOWN = 4  # differences in a message
_MAX_WIDTH = 60  # of a value in a message


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint that a fit resumes from; the lock of its run is held.

    Attributes:
        first_epoch: Epochs that the learner had trained before the fit.
        ended: Why the fit is over, or None if it was killed.
    """

    state: FitState
    lock: Lock
    checkpoints: CheckpointConfig
    epochs: int
    schedule: Schedule
    record: Record
    position: Position
    wd: float | list[float]
    first_epoch: int
    ended: str | None

    @classmethod
    def latest(
        cls, folder: str | Path, describe: Callable[[], dict[str, Any]], callbacks: list[str], batches: int, groups: int
    ) -> "ResumePoint":
        """Return the newest intact checkpoint of a run.

        The learner is given by its description (data, model and settings), the class names of its callbacks, the
        batches in an epoch and the number of layer groups. Raises FileError if there is no intact checkpoint, and
        SettingError if the run is in use or something differs; the message names it.
        """
        run = RunFolder(folder)
        if not run.names():
            found = f" ({found})" if (found := describe_folder(run.path)) else ""
            raise FileError(
                f"{run.path}: holds no checkpoints{found}; expected the folder that a fit had as checkpoint="
            )
        lock = run.lock()
        try:
            name, (values, tensors) = run.read_latest()
            point = cls._from_state(FitState(tensors, values), run, name, lock)
            _check_same_fit(run.path, values, describe(), callbacks)
            if point.position.num_batch > batches or len(point.schedule(0)[0]) != groups:
                raise FileError(f"{run.checkpoints / name}: not the checkpoint of a fit of {batches:,} batches")
            run.quarantine_newer(name)
        except BaseException:
            run.release(lock)
            raise
        return point

    @classmethod
    def _from_state(cls, state: FitState, run: RunFolder, name: str, lock: Lock) -> "ResumePoint":
        values = state.values
        try:
            _check_types(values)
            options = {key: values["checkpoints"][key] for key in ("every", "keep", "best")}
            return cls(
                state=state,
                lock=lock,
                checkpoints=CheckpointConfig(run.path, **options),
                epochs=values["epochs"],
                schedule=schedule_from_dict(values["schedule"]),
                record=state.record(),
                position=state.position(),
                wd=values["wd"],
                first_epoch=values["first_epoch"],
                ended=values["ended"],
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FileError(f"{run.checkpoints / name}: not the checkpoint of a fit ({error})") from error

    def release(self) -> None:
        """Release the lock of the run."""
        RunFolder(self.checkpoints.folder).release(self.lock)

    def progress_message(self, batches: int) -> str:
        """Return a message that says where training resumes, or that it is over; `batches` make an epoch."""
        done, total = self.position.iteration, self.epochs * batches
        if self.position.epoch >= self.epochs or self.ended not in (None, *RESUMABLE):
            return f"{self.checkpoints.folder}: {self.ended or FINISHED} after {done:,} batches; it is loaded"
        return f"{self.checkpoints.folder}: resumes after {done:,} of {total:,} batches"


def _check_types(values: dict[str, Any]) -> None:
    """Raise ValueError for values of a checkpoint that are not of the types that onecycle writes."""
    position, callbacks, best = values["position"], values["callbacks"], values["best"]
    counts = (*(position[key] for key in ("epoch", "num_batch", "iteration")), values["first_epoch"], values["epochs"])
    if not all(type(count) is int and 0 <= count < 2**62 for count in counts):
        raise ValueError("position, epochs or first_epoch are not counts")
    wd = values["wd"] if isinstance(values["wd"], list) else [values["wd"]]
    for name, number in [("position.seconds", position["seconds"]), *(("wd", number) for number in wd)]:
        if type(number) not in (int, float) or not 0 <= number < 1e300:
            raise ValueError(f"{name} is not a number of at least 0")
    for name, text in (("ended", values["ended"]), ("checkpoints.best", values["checkpoints"]["best"])):
        if not isinstance(text, str | None):
            raise ValueError(f"{name} is not text")
    if not isinstance(callbacks, list) or not all(
        isinstance(entry["name"], str) and isinstance(entry["values"], dict) for entry in callbacks
    ):
        raise ValueError("callbacks is not a list of callbacks")
    if not (isinstance(best["name"], str | None) and isinstance(best["value"], int | float | None)):
        raise ValueError("best is not an epoch")
    about = values.get("about", {})
    if not (isinstance(about, dict) and all(isinstance(part, dict) for part in about.values())):
        raise ValueError("about is not a description")


def _check_same_fit(run: Path, values: dict[str, Any], own: dict[str, Any], callbacks: list[str]) -> None:
    """Raise SettingError if data, model, settings or callbacks differ; warn if only the machine does."""
    about: dict[str, Any] = values.get("about", {})
    saved = {
        part: {name: each for name, each in named.items() if (part, name) not in _RESTORED}
        for part, named in about.items()
    }
    own_machine = own.pop("machine", {})
    missing = [entry["name"] for entry in values["callbacks"]]
    for name in callbacks:
        if name in missing:
            missing.remove(name)
    differences = _differences(saved, own) + [f"callbacks: {name}, which is not here" for name in missing]
    if differences:
        more = f"; and {len(differences) - _MAX_SHOWN:,} more" if len(differences) > _MAX_SHOWN else ""
        raise SettingError(
            f"{run} belongs to a different fit: {'; '.join(differences[:_MAX_SHOWN])}{more}; expected the same data, "
            "model, settings and callbacks"
        )
    if differences := _differences({"machine": saved.get("machine", {})}, {"machine": own_machine}):
        message = f"{run}: {'; '.join(differences)}; the fit resumes, but not bit for bit as there"
        warnings.warn(printable(message), stacklevel=4)


def _differences(saved: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """Return a text for each value in which two descriptions (dicts of dicts) differ."""
    return [
        f"{part}: {name} {_shortened(saved.get(part, {}).get(name))}, here {_shortened(values.get(name))}"
        for part, values in own.items()
        for name in dict.fromkeys([*saved.get(part, {}), *values])
        if saved.get(part, {}).get(name) != values.get(name)
    ]


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _MAX_WIDTH else f"{text[: _MAX_WIDTH - 3]}…"
