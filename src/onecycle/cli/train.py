"""`onecycle train`, `train --resume` and `lr-find`: from settings to a trained model and its files."""

import json
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from onecycle.checkpoint.run_folder import REQUEST, SETTINGS, RunFolder
from onecycle.checkpoint.writer import CheckpointConfig
from onecycle.cli.plan import model_facts, plan_lines
from onecycle.cli.run_files import (
    MODEL,
    PLOTS,
    RECORD,
    REPORT,
    check_resumable,
    check_writable,
    delete_settings,
    is_resumable,
    is_vacant,
    load_settings,
    remove_new_folders_on_error,
    reserve_output,
    save_settings,
    use_agg,
    write_figure,
)
from onecycle.cli.settings import TrainSettings
from onecycle.cli.setup import Setup, build_learner, build_setup
from onecycle.cli.terminal import print_lines
from onecycle.core.choices import SetName
from onecycle.core.device import pick_device
from onecycle.core.files import unwritable
from onecycle.core.lr_curve import LRCurve
from onecycle.core.record import Record
from onecycle.errors import FileError, NonFiniteLossError
from onecycle.learner import Learner
from onecycle.show.interpret import summarize_errors
from onecycle.show.report import WHEN_STOPPED, drawable, write_report
from onecycle.tables.cache.sizes import parse_memory_limit
from onecycle.train.lr_find import LRFindResult
from onecycle.train.metrics import metric_name


def train(settings: TrainSettings, out: Path, force: bool, as_json: bool, every: str | None = None) -> int:
    """Find a learning rate, train one cycle, and write the run to `out`. Return the exit code.

    `every` is the interval of the checkpoints; None for none.
    """
    checkpoint = None if every is None else CheckpointConfig(out, every, overwrite=force)
    if not settings.is_dataset:  # the memory that is free now decides, also for a training that is resumed
        settings = replace(settings, memory_limit=str(parse_memory_limit(settings.memory_limit)))
    run = RunFolder(out)
    device = pick_device(settings.device)
    use_agg()
    with reserve_output(out, force) as lock:
        if is_vacant(out):  # else what an earlier run wrote stays resumable until this one trains
            save_settings(out, settings, every)
            delete_settings(out, SETTINGS)
        with redirect_stdout(sys.stderr):  # the learner shows its progress on stdout, which is for data here
            setup, learn = _prepare(settings, device)
            curve = _find(learn) if settings.lr is None else None
            lr = _suggest(curve) if curve is not None else settings.lr
            assert lr is not None  # it is given, or the curve suggests it
            run.prune(set())  # of an earlier training, which --force replaces
            run.delete_failure()
            delete_settings(out, SETTINGS)
            if checkpoint is not None:
                save_settings(out, replace(settings, epochs=setup.epochs), every, lr, curve)
                checkpoint = replace(checkpoint, lock=lock)
            with _name_options_in_errors(settings, lr):
                learn.fit_one_cycle(setup.epochs, lr, checkpoint=checkpoint)
        return _finish(learn, settings, setup, curve, lr, out, as_json)


def resume(run: Path, device: str | None, as_json: bool) -> int:
    """Resume a training from its newest checkpoint and write what `train` writes. Return the exit code.

    One that was killed before its first checkpoint begins anew.

    Raises:
        FileError: If there is nothing to resume, or the run was made in Python.
        SettingError: If the run is in use, or its data have changed.
    """
    if RunFolder(run).is_python_run():
        raise FileError(
            f"{run}: made in Python, so its model and settings are not known here; go on with "
            f"learn.resume({str(run)!r}), by a learner made as the one of the run"
        )
    check_resumable(run)  # before the lock is written to it
    with RunFolder(run).locked() as lock:
        settings, every, lr, curve = load_settings(run)
        if device is not None:
            settings = replace(settings, device=device)
        if lr is not None and is_resumable(run):
            use_agg()
            with redirect_stdout(sys.stderr):
                setup, learn = _prepare(settings, pick_device(settings.device))
                with _name_options_in_errors(settings, lr):
                    learn.resume(run, lock=lock)
            delete_settings(run, REQUEST)
            return _finish(learn, settings, setup, curve, lr, run, as_json)
    print(f"{run}: was killed before its first checkpoint; it begins anew", file=sys.stderr)
    return train(settings, run, False, as_json, every)


def find_lr(settings: TrainSettings, out: Path | None, as_json: bool) -> int:
    """Print the finder's suggestion and, if `out` is given, draw its curve to it. Return the exit code."""
    device = pick_device(settings.device)
    use_agg()
    folder = nullcontext() if out is None else remove_new_folders_on_error(out.parent)
    with folder, redirect_stdout(sys.stderr):
        if out is not None:
            check_writable(out)
        curve = _find(_prepare(settings, device)[1])
        suggestion = _suggest(curve)
        if out is not None:
            write_figure(curve.plot(), out)
    if as_json:
        found = {"suggestion": suggestion, "why": curve.choice.why, "suggestions": curve.suggestions()}
        found |= {"plot": str(out) if out else None}
        print(json.dumps({**found, "lrs": curve.lrs, "losses": [_finite(loss) for loss in curve.losses]}))
    else:
        print(f"{suggestion:.3g}")
    return 0


def _prepare(settings: TrainSettings, device: torch.device) -> tuple[Setup, Learner]:
    """Make the learner, and print the plan if the data are the user's own."""
    setup = build_setup(settings, device)
    if not settings.is_dataset:
        print_lines(*plan_lines(setup), file=sys.stderr)
    return setup, build_learner(setup, settings)


def _find(learn: Learner) -> LRFindResult:
    learn.silent = True  # the finder ends with a hint for notebooks
    curve = learn.lr_find()
    learn.silent = None
    for name, lr in curve.suggestions().items():
        print(f"learning rate, {name + ':':9} {lr:.2e}", file=sys.stderr)
    return curve


def _suggest(curve: LRCurve) -> float:
    """Return the learning rate to train with, and print why."""
    lr = curve.choice
    print(f"learning rate: {lr:.2e} ({lr.why})", file=sys.stderr)
    return float(lr)


@contextmanager
def _name_options_in_errors(settings: TrainSettings, lr: float) -> Generator[None]:
    """Advise options of the command line in the error of a loss that becomes NaN."""
    try:
        yield
    except NonFiniteLossError as error:
        message = str(error).partition(": try ")[0]
        advice = f"a --lr below {lr:.3g}" if settings.lr is None else "--lr auto, or a lower --lr"
        raise NonFiniteLossError(f"{message}: try {advice}") from error


def _finish(
    learn: Learner,
    settings: TrainSettings,
    setup: Setup,
    curve: LRCurve | None,
    lr: float,
    out: Path,
    as_json: bool,
) -> int:
    """Score the model, write the run to `out`, and print its files. Return the exit code."""
    with redirect_stdout(sys.stderr):
        scores = _score(learn, "valid", "validation")
        has_test_rows = setup.data.test_ds is not None and not settings.is_dataset
        test_scores = _score(learn, "test", "test") if has_test_rows else {}
        record = learn.recorder.record
        record.settings = {**_describe_settings(settings, setup, curve), **record.settings}
        if record.stopped:  # the last epoch has no row: without this, nothing would say how good the model is
            record.settings |= {f"{name}{WHEN_STOPPED}": value for name, value in scores.items()}
        record.settings |= {f"{name} on test rows": value for name, value in test_scores.items()}
        if curve is not None:
            record.lr_curve = {"lrs": curve.lrs, "losses": curve.losses, "suggestion": lr}
        record.mistakes = summarize_errors(learn)
        files = _write(learn, record, out)
    if as_json:
        tested = {"test": test_scores} if has_test_rows else {}
        result = {"lr": lr, **scores, **tested, "stopped": record.stopped, "files": [str(file) for file in files]}
        print(json.dumps(result))
    else:
        print_lines(*files)
    if record.stopped != "interrupted":
        return 0
    advice = f"; resume it: onecycle train --resume {out}" if RunFolder(out).names() else ""
    print_lines(f"interrupted: what was trained so far is in {out}, marked as stopped{advice}", file=sys.stderr)
    return 128 + signal.SIGINT


def _score(learn: Learner, which: SetName, name: str) -> dict[str, Any]:
    """Return and print loss and metrics of the model as it is now, which may be in the middle of an epoch."""
    loss, *values = learn.validate(which)
    scores = dict(zip(map(metric_name, learn.metrics), values, strict=True))
    words = [f"loss {loss:.4f}", *(f"{metric} {value:.4f}" for metric, value in scores.items())]
    print_lines(f"{name}: {', '.join(words)}", file=sys.stderr)
    return {f"{which}_loss": _finite(loss)} | {metric: _finite(value) for metric, value in scores.items()}


def _describe_settings(settings: TrainSettings, setup: Setup, curve: LRCurve | None) -> dict[str, Any]:
    """Return the settings for the record, except those that the learner writes down itself."""
    data = setup.data
    described: dict[str, Any] = {"data": settings.source}
    if not settings.is_dataset:
        if setup.table.targets:
            described["target"] = setup.table.targets
        described |= {"task": data.task, "split": setup.table.split}
        described |= {"train rows": len(data.train_ds), "valid rows": len(data.valid_ds)}
        dropped = [column.name for column in data.columns if column.kind == "dropped"]
        described |= {"dropped": dropped} if dropped else {}
    lr_choice = "given"
    if curve is not None:
        lr_choice = "suggested by the finder" if curve.choice.is_certain else curve.choice.why
    return described | {"hidden": model_facts(setup)["hidden"], "lr_choice": lr_choice}


def _write(learn: Learner, record: Record, out: Path) -> list[Path]:
    """Write the files of a run; those of an earlier run are replaced, or removed if this one has no such plot."""
    try:
        (out / RECORD).unlink(missing_ok=True)  # else a kill would leave it beside another run's model
    except OSError as error:
        raise unwritable(out / RECORD, error) from error
    learn.export((out / MODEL).absolute(), overwrite=True)
    record.save(out / RECORD)
    files = [out / MODEL, out / RECORD]
    draw = drawable(record)
    for name in PLOTS:
        if plot := draw.get(name.removesuffix(".png")):
            write_figure(plot(), out / name)
            files.append(out / name)
        else:
            (out / name).unlink(missing_ok=True)
    write_report(record, out / REPORT)
    return [*files, out / REPORT]


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None  # JSON has neither NaN nor infinity
