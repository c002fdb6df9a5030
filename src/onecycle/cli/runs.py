"""`onecycle runs`: what became of the runs in a folder."""

import json
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten
from typing import Any

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.cli.layout import print_columns
from onecycle.cli.run_files import RECORD
from onecycle.core.reading import read_bytes
from onecycle.core.record import Record
from onecycle.errors import FileError
from onecycle.train.signals import FINISHED, RESUMABLE


def runs(folder: Path, as_json: bool) -> int:
    """List the runs in `folder`, the newest first; the exit code. Raises FileError where it is no folder."""
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder; expected one with the folders that `onecycle train` writes")
    places = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    found = sorted(filter(None, map(_described, places)), key=lambda run: run["changed"], reverse=True)
    if as_json:
        print(json.dumps(found))
    elif found:
        head = ["run", "state", "epochs", "batches", "valid_loss", "metrics", "changed"]
        print_columns(head, [_row(run) for run in found], right=(2, 3, 4))
    else:
        print(f"no runs are in {folder}")
    return 0


def _described(path: Path) -> dict[str, Any] | None:
    """A run as JSON has it; None for a folder that is none."""
    run = RunFolder(path)
    values = run.read_latest_state()
    if values is not None:
        record, epochs, ended = Record.from_json(json.dumps(values["record"])), values["epochs"], values["ended"]
        done = {"batches": values["position"]["iteration"]}
        state = _state(ended, run.read_failure())
    elif (path / RECORD).is_file():
        try:
            record = Record.load(path / RECORD)
            state = f"stopped ({record.stopped})" if record.stopped else FINISHED
        except FileError:
            if b'"batch_losses"' not in read_bytes(path / RECORD):
                return None  # somebody else's
            record, state = Record(), f"its {RECORD} cannot be read"
        epochs, done = record.settings.get("epochs"), {"batches": len(record.losses)}
    elif run.names():
        record, epochs, done, state = Record(), None, {"batches": 0}, "its checkpoints cannot be read"
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
        **done,
        "valid_loss": losses[-1] if losses else None,
        "metrics": metrics,
        "changed": datetime.fromtimestamp(_changed(run), UTC).isoformat(timespec="seconds"),
    }


def _state(ended: str | None, failure: str | None) -> str:
    """What the newest checkpoint's word for why the fit ended means."""
    resumable = ended is None or ended in RESUMABLE
    if failure is not None:
        what = f"failed ({shorten(failure.partition(';')[0], 64, placeholder='…')})"
        return what + (", can be resumed" if resumable else "")
    if resumable:
        return f"stopped ({ended or 'killed'}), can be resumed"
    return ended if ended == FINISHED else f"finished ({ended})"


def _changed(run: RunFolder) -> float:
    return max(place.stat().st_mtime for place in (run.path, run.checkpoints) if place.exists())


def _row(run: dict[str, Any]) -> list[str]:
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in run["metrics"].items() if value is not None)
    changed = datetime.fromisoformat(run["changed"]).astimezone().strftime("%Y-%m-%d %H:%M")
    loss = "" if run["valid_loss"] is None else f"{run['valid_loss']:.4f}"
    epochs = "" if run["epochs"] is None else f"{run['epochs_done']} of {run['epochs']}"
    return [run["run"], run["state"], epochs, f"{run['batches']:,}", loss, metrics, changed]
