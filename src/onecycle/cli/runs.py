"""`onecycle runs`: the state of the runs in a folder."""

import json
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten
from typing import Any

from onecycle.checkpoint.run_folder import LOCK, RunFolder
from onecycle.cli.run_files import RECORD, is_begun
from onecycle.cli.terminal import print_lines, print_table
from onecycle.core.reading import read_bytes
from onecycle.core.record import Record
from onecycle.errors import FileError
from onecycle.train.signals import FINISHED, RESUMABLE


def runs(folder: Path, as_json: bool) -> int:
    """List the runs in `folder`, the newest first. Return the exit code. Raise FileError if it is not a folder."""
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder; expected one with the folders that `onecycle train` writes")
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    described = [run for run in map(_describe, candidates) if run is not None]
    described.sort(key=lambda run: run["changed"], reverse=True)
    if as_json:
        print(json.dumps(described))
    elif described:
        head = ["run", "state", "epochs", "batches", "valid_loss", "metrics", "changed"]
        print_table([_row(run) for run in described], head, right=(2, 3, 4))
    else:
        print_lines(f"no runs are in {folder}")
    return 0


def _describe(path: Path) -> dict[str, Any] | None:
    """Return the run in a folder as JSON has it; None if there is none."""
    run = RunFolder(path)
    checkpoint = run.read_latest_state()
    if checkpoint is not None:
        record, epochs = Record.from_json(json.dumps(checkpoint["record"])), checkpoint["epochs"]
        batches, state = checkpoint["position"]["iteration"], _state(checkpoint["ended"], run.read_failure())
    elif (path / RECORD).is_file():
        try:
            record = Record.load(path / RECORD)
            state = f"stopped ({record.stopped})" if record.stopped else FINISHED
        except FileError:
            if b'"batch_losses"' not in read_bytes(path / RECORD):
                return None  # a file of that name that onecycle did not write
            record, state = Record(), f"its {RECORD} cannot be read"
        epochs, batches = record.settings.get("epochs"), len(record.losses)
    elif run.names():
        record, epochs, batches, state = Record(), None, 0, "its checkpoints cannot be read"
    elif is_begun(path) or _was_locked(run):
        advice = "can be resumed: it begins anew" if is_begun(path) else "can be begun again"
        record, epochs, batches, state = Record(), None, 0, f"killed before its first checkpoint, {advice}"
    else:
        return None
    owner = run.owner_pid()
    losses = [loss for loss in record.val_losses if loss is not None]
    metrics = dict(zip(record.metric_names, record.metrics[-1], strict=True)) if record.metrics else {}
    return {
        "run": str(path),
        "state": f"running (process {owner})" if owner else state,
        "epochs_done": len(record.epochs),
        "epochs": epochs,
        "batches": batches,
        "valid_loss": losses[-1] if losses else None,
        "metrics": metrics,
        "changed": datetime.fromtimestamp(_changed(run), UTC).isoformat(timespec="seconds"),
    }


def _was_locked(run: RunFolder) -> bool:
    return (run.path / LOCK).is_file() and run.checkpoints.is_dir() and not any(run.checkpoints.iterdir())


def _state(ended: str | None, failure: str | None) -> str:
    """Return the state of a run in words; `ended` is why its fit ended, as the newest checkpoint says."""
    resumable = ended is None or ended in RESUMABLE
    if failure is not None:
        words = f"failed ({shorten(failure.partition(';')[0], 64, placeholder='…')})"
        return words + (", can be resumed" if resumable else "")
    if resumable:
        return f"stopped ({ended or 'killed'}), can be resumed"
    return ended if ended == FINISHED else f"finished ({ended})"


def _changed(run: RunFolder) -> float:
    return max(path.stat().st_mtime for path in (run.path, run.checkpoints) if path.exists())


def _row(run: dict[str, Any]) -> list[str]:
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in run["metrics"].items() if value is not None)
    changed = datetime.fromisoformat(run["changed"]).astimezone().strftime("%Y-%m-%d %H:%M")
    loss = "" if run["valid_loss"] is None else f"{run['valid_loss']:.4f}"
    epochs = "" if run["epochs"] is None else f"{run['epochs_done']} of {run['epochs']}"
    return [run["run"], run["state"], epochs, f"{run['batches']:,}", loss, metrics, changed]
