"""The files of a run: their names, making sure that they can be written, and the settings that resuming needs."""

import os
import reprlib
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from onecycle.checkpoint.run_folder import LOCK, RECORD, REQUEST, SETTINGS, RunFolder
from onecycle.cli.settings import ImageSize, ModelChoice, ModelKind, TrainSettings
from onecycle.core.archives import check_replaceable, read_folder, read_manifest, remove_folder, write_folder
from onecycle.core.choices import ColumnKind, EngineName, Precision, Task
from onecycle.core.files import Lock, atomic_write, unwritable
from onecycle.core.lr_curve import LRCurve
from onecycle.core.record import decode_nonfinite, encode_nonfinite
from onecycle.errors import FileError, OutputError, SettingError
from onecycle.export.bundle import check_bundle_path
from onecycle.tables.spec import TableSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODEL, REPORT = "model", "report.html"
PLOTS = ("lr_find.png", "lr.png", "losses.png", "metrics.png", "confusion.png", "predictions.png")
_MAX_TEXT = 10_000  # characters of a setting
_SETTINGS_KIND = "settings"  # in the manifest of the folder that holds them


def use_agg() -> None:
    """Let matplotlib draw to files only: a command opens no window and needs no screen."""
    import matplotlib

    matplotlib.use("Agg")


@contextmanager
def reserve_output(out: Path, force: bool) -> Generator[Lock]:
    """Make the folder `out` for a run and lock it; remove it again if the block fails before it wrote anything.

    In the end, settings stay only if there are checkpoints to resume from.

    Raises:
        SettingError: If another process writes to it, it is not empty (see `is_vacant`) and `force` is false, or it
            holds a run made in Python, which `force` would destroy.
        OutputError: If the files of a run cannot be written to it, or something else is in their places.
    """
    run = RunFolder(out)
    with remove_new_folders_on_error(out):
        if out.is_file():
            raise OutputError(f"{out} is a file; expected a folder: give another --out")
        check_writable(out / RECORD)
        with run.locked() as lock:
            if run.is_python_run():
                raise SettingError(
                    f"{out} holds a run made in Python, whose checkpoints would be lost; give another --out"
                )
            if not force and not is_vacant(out):
                raise SettingError(
                    f"{out} is not empty; give another --out, or --force to replace what an earlier run wrote"
                )
            for name in (RECORD, REPORT, *PLOTS):
                if (out / name).is_dir():
                    raise OutputError(f"{out / name} is a folder; expected a file or nothing: give another --out")
                if (out / name).exists() and not (run.is_cli_run() or is_vacant(out)):
                    raise OutputError(
                        f"{out / name}: not of a run of `onecycle train`; move it away, or give another --out"
                    )
            check_bundle_path(out / MODEL, overwrite=True)
            for name in (SETTINGS, REQUEST):
                check_replaceable(out / name, _SETTINGS_KIND, replace=True)
            run.check_removable()
            try:
                yield lock
            finally:
                delete_settings(out, REQUEST, *([] if run.names() else [SETTINGS]))


def is_vacant(out: Path) -> bool:
    """Whether a folder holds nothing, or only what a training leaves that was killed before its first checkpoint."""
    run = RunFolder(out)
    names = {path.name for path in out.iterdir()} - {LOCK}
    if run.checkpoints.is_dir() and not any(run.checkpoints.iterdir()):
        names.remove(run.checkpoints.name)
    if is_begun(out):  # while its results were being written
        names -= {SETTINGS, REQUEST, MODEL, REPORT, *PLOTS}
    return not names


def is_begun(run: Path) -> bool:
    """Whether the folder has the settings of a training that was killed before its first checkpoint, or still runs."""
    has_result = RunFolder(run).names() or (run / RECORD).exists()
    return not has_result and _settings_folder(run) is not None


def _settings_folder(run: Path) -> Path | None:
    """Return the folder of the newest settings, if they are whole."""
    for name in (SETTINGS, REQUEST):
        with suppress(FileError):
            read_manifest(run / name, _SETTINGS_KIND)
            return run / name
    return None


@contextmanager
def remove_new_folders_on_error(folder: Path) -> Generator[None]:
    """If the block fails, remove `folder` and its parents, as far as the block made them and they are empty."""
    missing: list[Path] = []
    with suppress(OSError):  # a folder that may not be entered, which is reported when it is written to
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:  # Ctrl-C and SIGTERM too
        with suppress(OSError):  # not empty, or not made
            for path in missing:
                path.rmdir()
        raise


def check_new(path: Path, force: bool, option: str) -> None:
    """Raise OutputError if `path` is a folder, SettingError if it is a file and `force` is false."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; expected the name of a file")
    if os.path.lexists(path) and not force:
        raise SettingError(f"{path} exists; give another {option}, or --force to replace it")


def check_writable(path: Path) -> None:
    """Raise OutputError if `path` cannot be written. Make its folder, and leave nothing else there."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; expected the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):  # the only test that is true for every user and file system
            pass
    except OSError as error:
        raise unwritable(path.parent, error) from error


def write_figure(figure: "Figure | Any", path: Path) -> None:
    """Write `figure` to `path` as PNG and close it."""
    from matplotlib import pyplot as plt

    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=144, bbox_inches="tight")
    plt.close(figure)


def save_settings(
    run: Path, settings: TrainSettings, every: str | None, lr: float | None = None, curve: LRCurve | None = None
) -> None:
    """Write what resuming needs: settings, interval of checkpoints, and what the finder said. Raise OutputError.

    Without a learning rate this is only a request: a training that begins anew.
    """
    values = asdict(settings)
    if not settings.is_dataset:
        values["source"] = str(Path(settings.source).resolve())  # the run may be resumed from another folder
    losses = None if curve is None else encode_nonfinite({"lrs": curve.lrs, "losses": curve.losses})
    state = {"settings": values, "every": every, "lr": lr, "curve": losses}
    write_folder(run / (REQUEST if lr is None else SETTINGS), _SETTINGS_KIND, {}, state, replace=True)


def delete_settings(run: Path, *names: str) -> None:
    """Remove what `save_settings` wrote into these folders, if anything. Raise OutputError for anything else."""
    for name in names:
        remove_folder(run / name, _SETTINGS_KIND)


def is_resumable(run: Path) -> bool:
    """Return whether the folder holds the settings of a training and a checkpoint."""
    return (run / SETTINGS).is_dir() and bool(RunFolder(run).names())


def check_resumable(run: Path) -> None:
    """Raise FileError if the folder holds neither a training to resume, nor one to begin anew."""
    if not is_resumable(run) and not is_begun(run):
        killed = not (run / RECORD).exists() and (run / LOCK).exists()
        more = (
            "it was killed at once: begin it again"
            if killed
            else "expected the folder of one that had --checkpoint-every"
        )
        raise FileError(f"{run}: holds no training to resume; {more}")


def _without_data_group(values: dict[str, Any]) -> dict[str, Any]:
    """Convert settings of before TableSpec, which had all that concerns the data in a group of its own."""
    data, rest = values["data"], {name: value for name, value in values.items() if name != "data"}
    table = {name: data[name] for name in ("task", "split", "valid", "seed")}
    table |= {"target": data["target"] or (), "drop": data["drop"] or (), "kinds": dict(data["kinds"])}
    others = {name: data[name] for name in ("source", "image_size", "memory_limit", "bs", "device")}
    return {**rest, **others, "table": table}


class SavedSettings(NamedTuple):
    """What `save_settings` wrote; `lr` is None if the training was killed before it had one."""

    settings: TrainSettings
    every: str | None
    lr: float | None
    curve: LRCurve | None


def _check_settings(values: dict[str, Any]) -> None:
    """Raise ValueError for a setting of another type, or with another value, than the command line gives it."""

    def is_count(value: Any) -> bool:
        return type(value) is int and 0 <= value < 2**62

    def is_number(value: Any) -> bool:
        return type(value) in (int, float) and 0 <= value < 1e300

    def is_name(value: Any) -> bool:
        return isinstance(value, str) and len(value) < _MAX_TEXT

    def are(is_valid: Callable[[Any], bool], value: Any) -> bool:
        return isinstance(value, list | tuple) and all(map(is_valid, value))  # pyright: ignore[reportUnknownArgumentType] -- JSON

    valid = {
        "source": is_name(values["source"]),
        "target": is_name(values["target"]) or are(is_name, values["target"]),
        "drop": is_name(values["drop"]) or are(is_name, values["drop"]),
        "task": values["task"] in (None, *get_args(Task)),
        "kinds": all(is_name(name) and kind in get_args(ColumnKind) for name, kind in values["kinds"].items()),
        "split": is_name(values["split"]),
        "valid": is_number(values["valid"]),
        "seed": is_count(values["seed"]),
        "image_size": values["image_size"] is None or are(is_count, values["image_size"]),
        "memory_limit": values["memory_limit"] is None or is_name(values["memory_limit"]),
        "bs": values["bs"] is None or is_count(values["bs"]),
        "epochs": values["epochs"] is None or is_count(values["epochs"]),
        "kind": values["kind"] in get_args(ModelKind),
        "hidden": values["hidden"] is None or are(is_count, values["hidden"]),
        "wd": is_number(values["wd"]),
        "engine": values["engine"] in get_args(EngineName),
        "precision": values["precision"] in get_args(Precision),
        "threads": values["threads"] is None or is_count(values["threads"]),
        "device": values["device"] is None or is_name(values["device"]),
        "lr": values["lr"] is None or is_number(values["lr"]),
        "peak lr": values["peak lr"] is None or is_number(values["peak lr"]),
        "interval of checkpoints": values["every"] is None or is_name(values["every"]),
    }
    if wrong := [name for name, is_valid in valid.items() if not is_valid]:
        raise ValueError(f"{wrong[0]} is {reprlib.repr(values[wrong[0]])}, which onecycle never writes")


def load_settings(run: Path) -> SavedSettings:
    """Return what `save_settings` wrote. Raise FileError if it is missing or damaged, or the data are gone."""
    check_resumable(run)
    state, _ = read_folder(_settings_folder(run) or run / SETTINGS, _SETTINGS_KIND)
    try:
        values: dict[str, Any] = dict(state["settings"])
        if "data" in values:
            values = _without_data_group(values)
        values["table"] = TableSpec(**values["table"])
        values["image_size"] = values["image_size"] and ImageSize(*values["image_size"])
        kind, hidden = values["model"]["kind"], values["model"]["hidden"]
        values["model"] = ModelChoice(kind, tuple(hidden) if isinstance(hidden, list) else hidden)  # pyright: ignore[reportUnknownArgumentType] -- JSON
        settings = TrainSettings(**values)
        curve = None if state["curve"] is None else LRCurve(**decode_nonfinite(state["curve"]))
        lr, every = state["lr"], state.get("every", "1 epoch")  # 0.1.0 did not write it
        _check_settings(
            {**vars(settings.table), **vars(settings.model), **vars(settings), "peak lr": lr, "every": every}
        )
        lr = None if lr is None else float(lr)
        exists = settings.is_dataset or Path(settings.source).exists()
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, OSError) as error:
        raise FileError(f"{run / SETTINGS}: not the settings of a run ({error}); start it again") from error
    if not exists:
        raise FileError(f"{settings.source}: no such file or folder; {run} was trained on it: put it back")
    return SavedSettings(settings, every, lr, curve)
