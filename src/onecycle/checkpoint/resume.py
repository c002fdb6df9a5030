"""Find the newest intact checkpoint of a run, and check that it fits the learner that resumes it."""

import json
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.checkpoint.state import FitState
from onecycle.checkpoint.writer import CheckpointConfig
from onecycle.core.archives import describe_folder
from onecycle.core.cores import usable_cores
from onecycle.core.files import Lock, describe_special
from onecycle.core.record import Record, decode_nonfinite, encode_nonfinite
from onecycle.errors import FileError, SettingError, enumerate_first, pluralize, printable, warn_user
from onecycle.optim.schedules import Schedule, schedule_from_dict
from onecycle.train.fit import Position
from onecycle.train.signals import FINISHED, RESUMABLE
from onecycle.train.signature import Signature, callback_names

_RESTORED = (("model", "frozen"), ("optimizer", "groups"))  # in descriptions of earlier versions
_MAX_WIDTH = 60  # of a value in a message
_ABSENT = object()


@dataclass(frozen=True)
class ResumePoint:
    """A checkpoint that a fit resumes from; the lock of its run is held.

    Attributes:
        first_epoch: Epochs that the learner had trained before the fit.
        blocks: How the rows were read from the disk, by the memory that was free then; None if they were in memory.
        ended: Why the fit is over, or None if it was killed.
        threads: CPU threads of the fit, or None if it had none or did not say.
        signature: That of the learner that resumes.
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
    blocks: tuple[int, int] | None
    threads: int | None = None
    signature: Signature | None = None

    @classmethod
    def latest(
        cls,
        folder: str | Path,
        sign: Callable[[], Signature],
        callbacks: list[str],
        batches: int,
        groups: int,
        strict: bool = True,
        lock: Lock | None = None,
    ) -> "ResumePoint":
        """Return the newest intact checkpoint of a run.

        The learner is given by its signature (data, model and settings), the class names of its callbacks, the batches
        in an epoch and the number of layer groups. Raises FileError if there is no intact checkpoint, and SettingError
        if the run is in use or something differs; the message names it. Without `strict` it is a warning.
        `lock` is that of the run, if the caller has it.
        """
        run = RunFolder(folder)
        if not run.names():
            link = describe_special(run.checkpoints) if run.checkpoints.is_symlink() else None
            found = f"{run.checkpoints}: {link}, which is not followed" if link else describe_folder(run.path)
            found = f" ({found})" if found else ""
            raise FileError(
                f"{run.path}: holds no checkpoints{found}; expected the folder that a fit had as checkpoint="
            )
        config, lock = CheckpointConfig(run.path, lock=lock), lock or run.lock()
        try:
            name, (values, tensors) = run.read_latest()
            point = cls._from_state(FitState(tensors, values), run, name, lock, config)
            signature = sign()
            signature.continue_from(values.get("changed", {}))
            _check_same_fit(run.path, values, signature, callbacks, strict)
            point = replace(point, signature=signature, threads=_threads(run.path, point.record, values))
            if point.position.num_batch > batches or len(point.schedule(0)[0]) != groups:
                raise FileError(f"{run.checkpoints / name}: not the checkpoint of a fit of {batches:,} batches")
            run.quarantine_newer(name)
        except BaseException:
            if config.lock is None:
                run.release(lock)
            raise
        return point

    @classmethod
    def _from_state(
        cls, state: FitState, run: RunFolder, name: str, lock: Lock, config: CheckpointConfig
    ) -> "ResumePoint":
        values = state.values
        try:
            _check_types(values)
            options = {key: values["checkpoints"][key] for key in ("every", "keep", "best")}
            options["mode"] = values["checkpoints"].get("mode")  # checkpoints of 0.1.0 have none
            return cls(
                state=state,
                lock=lock,
                checkpoints=replace(config, **options),
                epochs=values["epochs"],
                schedule=schedule_from_dict(values["schedule"]),
                record=state.record(),
                position=state.position(),
                wd=values["wd"],
                first_epoch=values["first_epoch"],
                ended=values["ended"],
                blocks=tuple(blocks) if (blocks := values.get("blocks")) is not None else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FileError(f"{run.checkpoints / name}: not the checkpoint of a fit ({error})") from error

    def release(self) -> None:
        """Release the lock of the run, unless it is the caller's."""
        if self.checkpoints.lock is None:
            RunFolder(self.checkpoints.folder).release(self.lock)

    def progress_message(self, batches: int) -> str:
        """Return a message that says where training resumes, or that it is over; `batches` make an epoch."""
        done, total = self.position.iteration, self.epochs * batches
        if self.position.epoch >= self.epochs or self.ended not in (None, *RESUMABLE):
            return f"{self.checkpoints.folder}: {self.ended or FINISHED} after {done:,} batches; it is loaded"
        return f"{self.checkpoints.folder}: resumes after {done:,} of {total:,} batches"


def _check_types(values: dict[str, Any]) -> None:
    """Raise ValueError for values of a checkpoint that are not of the types that onecycle writes."""
    position, callbacks, best = values["position"], values["callbacks"], decode_nonfinite(values["best"])
    counts = (*(position[key] for key in ("epoch", "num_batch", "iteration")), values["first_epoch"], values["epochs"])
    if not all(type(count) is int and 0 <= count < 2**62 for count in counts):
        raise ValueError("position, epochs or first_epoch are not counts")
    wd = values["wd"] if isinstance(values["wd"], list) else [values["wd"]]
    if not wd:
        raise ValueError("wd is an empty list")
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
    blocks = values.get("blocks")
    if blocks is not None and not (isinstance(blocks, list) and [type(each) for each in blocks] == [int, int]):
        raise ValueError("blocks are not two counts")
    about = values.get("about", {})
    if not (isinstance(about, dict) and all(isinstance(part, dict) for part in about.values())):
        raise ValueError("about is not a description")
    objects = {**values.get("objects", {})}
    objects.pop("globals", None)
    if not all(
        isinstance(part, dict) and all(isinstance(held, dict) for held in part.values()) for part in objects.values()
    ):
        raise ValueError("objects is not a description of objects")
    changed = values.get("changed", {})
    if not (isinstance(changed, dict) and all(map(_are_texts, changed.values()))):
        raise ValueError("changed is not a list of names by part")
    if not _are_texts(values.get("evaluating", [])):
        raise ValueError("evaluating is not a list of names")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _check_same_fit(
    run: Path, values: dict[str, Any], signature: Signature, callbacks: list[str], strict: bool
) -> None:
    """Raise SettingError if data, model, settings or callbacks differ, or warn; warn if only the machine does."""
    about: dict[str, dict[str, Any]] = values.get("about", {})
    saved, own = (
        {part: dict(named) for part, named in parts.items()} for parts in (about, encode_nonfinite(signature()))
    )
    for part, name in _RESTORED:
        saved.get(part, {}).pop(name, None)
    if "signature" not in saved:  # of onecycle 0.1.0: it says less
        own = {
            part: {name: each for name, each in named.items() if name in saved.get(part, {})}
            for part, named in own.items()
        }
    then = [entry["name"] for entry in values["callbacks"]]
    missing, more = _without(then, callbacks), _without(callbacks, then) if "signature" in saved else []
    left_out = signature.left_out | {
        ("callbacks", f"{name}.{key}")  # what is in the state of a callback
        for name, entry in zip(callback_names(then), values["callbacks"], strict=True)
        for key in entry["values"]
    }
    if missing or more:  # which says it all
        left_out |= {
            ("callbacks", name) for name in saved.get("callbacks", {}).keys() ^ own.get("callbacks", {}).keys()
        }
        left_out.add(("callbacks", "order"))
    saved.get("machine", {}).pop("threads", None)  # the fit resumes with as many
    machine = {"machine": saved.pop("machine", {})}, {"machine": own.pop("machine", {})}
    if machine[0]["machine"].get("python") != machine[1]["machine"].get("python"):  # whose code is another
        left_out |= {(part, name) for part, named in own.items() for name in named if name.startswith("code of ")}
    differences = [f"callbacks: {name}, which is not here" for name in missing]
    differences += [f"callbacks: {name}, which the run does not have" for name in more]
    differences += _differences(saved, own, left_out)
    if differences:
        message = f"{run} belongs to a different fit: {enumerate_first(differences)}"
        if strict:
            expected = "the same data, model, settings and callbacks"
            if all(text.startswith("callbacks: ") for text in differences) and not missing and not more:
                expected += "; what changes nothing, such as a time, is left out by the callback's resume_settings()"
            if "seed" in saved.get("settings", {}) and any(text.startswith("settings: seed ") for text in differences):
                expected += f"; make the data with seed={saved['settings']['seed']}"
            raise SettingError(f"{message}; expected {expected}")
        warn_user(printable(f"{message}; it is resumed all the same, since strict=False"))
    if differences := _differences(*machine):
        text = f"{run}: {'; '.join(differences)}; the fit resumes, but not bit for bit as there"
        warn_user(printable(text))


def _threads(run: Path, record: Record, values: dict[str, Any]) -> int | None:
    """Return how many threads the fit had, or as many as there are cores, with a warning, if these are fewer."""
    then = record.settings.get("threads", values.get("about", {}).get("machine", {}).get("threads"))  # of 0.1.0
    if type(then) is not int or then < 1:
        return None
    if then > (cores := usable_cores()):
        text = f"{run}: trained with {then} threads, and this process may use {pluralize(cores, 'core')}"
        warn_user(printable(f"{text}; the fit resumes with {cores}, but not bit for bit as there"))
    return min(then, cores)


def _without(names: list[str], others: list[str]) -> list[str]:
    """Return the names that are not among the others, each as often as it is missing."""
    left = [*others]
    return [name for name in names if name not in left or left.remove(name)]


def _differences(
    saved: dict[str, dict[str, Any]], own: dict[str, dict[str, Any]], left_out: Container[tuple[str, str]] = ()
) -> list[str]:
    """Return a text for each value in which two descriptions differ."""
    return [
        f"{part}: {name} {_shortened(then)}, here {_shortened(now)}"
        for part, values in own.items()
        for name in dict.fromkeys([*saved.get(part, {}), *values])
        if (part, name) not in left_out
        and (then := saved.get(part, {}).get(name, _ABSENT)) != (now := values.get(name, _ABSENT))
    ]


def _shortened(value: Any) -> str:
    text = "absent" if value is _ABSENT else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _MAX_WIDTH else f"{text[: _MAX_WIDTH - 3]}…"
