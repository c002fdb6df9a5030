"""What a run was asked for, kept beside its checkpoints, so that it can be resumed by its folder alone."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onecycle.checkpoint.run_folder import SETTINGS, RunFolder
from onecycle.cli.settings import DataSettings, ModelChoice, TrainSettings
from onecycle.core.archives import read_folder, write_folder
from onecycle.core.record import LRCurve, decode_nonfinite, encode_nonfinite
from onecycle.errors import FileError

_KIND = "settings"


def keep_settings(run: Path, settings: TrainSettings, lr: float, found: LRCurve | None) -> None:
    """Write the settings, the learning rate that was taken, and the finder's curve. Raises OutputError."""
    curve = None if found is None else encode_nonfinite({"lrs": found.lrs, "losses": found.losses})
    about = asdict(settings)
    if not settings.data.is_dataset:
        about["data"]["source"] = str(Path(settings.data.source).resolve())  # it may be resumed from another folder
    write_folder(run / SETTINGS, _KIND, {}, {"settings": about, "lr": lr, "curve": curve}, replace=True)


def forget_settings(run: Path) -> None:
    """Remove what `keep_settings` wrote, where it did."""
    shutil.rmtree(run / SETTINGS, ignore_errors=True)


def can_be_resumed(run: Path) -> bool:
    """Whether `keep_settings` wrote what the run was asked for, and there is a checkpoint."""
    return (run / SETTINGS).is_dir() and bool(RunFolder(run).names())


def kept_settings(run: Path) -> tuple[TrainSettings, float, LRCurve | None]:
    """What `keep_settings` wrote. Raises FileError where it is missing or damaged."""
    if not can_be_resumed(run):
        raise FileError(f"{run}: holds no training to resume; expected the folder of one that had --checkpoint-every")
    values, _ = read_folder(run / SETTINGS, _KIND)
    try:
        given: dict[str, Any] = dict(values["settings"])
        data = {key: _tuples(value) for key, value in given.pop("data").items()}
        model = {key: _tuples(value) for key, value in given.pop("model").items()}
        settings = TrainSettings(data=DataSettings(**data), model=ModelChoice(**model), **given)
        found = None if values["curve"] is None else LRCurve(**decode_nonfinite(values["curve"]))
        lr = float(values["lr"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FileError(f"{run / SETTINGS}: not the settings of a run ({error}); start it again") from error
    if not settings.data.is_dataset and not Path(settings.data.source).exists():
        raise FileError(f"{settings.data.source}: no such file or folder; {run} was trained on it: put it back")
    return settings, lr, found


def _tuples(value: Any) -> Any:
    """Lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
