"""`onecycle train` and `onecycle lr-find`: settings → learner → files."""

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.checkpoint.writer import CheckpointConfig
from onecycle.cli.plan import model_facts, plan_lines
from onecycle.cli.run_files import (
    MODEL,
    PLOTS,
    RECORD,
    REPORT,
    check_writable,
    made_folders,
    reserve_output,
    use_agg,
    write_figure,
)
from onecycle.cli.run_settings import forget_settings, keep_settings
from onecycle.cli.settings import TrainSettings
from onecycle.cli.setup import Setup, build_setup, learner
from onecycle.core.choices import SetName
from onecycle.core.device import pick_device
from onecycle.core.files import Lock
from onecycle.core.record import LRCurve, Record
from onecycle.errors import NonFiniteLossError, SettingError
from onecycle.learner import Learner
from onecycle.show.interpret import summarize_errors
from onecycle.show.report import WHEN_STOPPED, drawable, write_report
from onecycle.train.lr_find import LRFindResult
from onecycle.train.metrics import metric_name

INTERRUPTED = 130
_CREDIBLE, _USUAL = 1e-4, 3e-3  # the lowest learning rate that a finder's curve is believed, and the library's default


def train(settings: TrainSettings, out: Path, force: bool, as_json: bool, every: str | None = None) -> int:
    """Find a learning rate, train for one cycle, write everything to `out`; the exit code.

    `every` is how often the training is kept there as it goes.
    """
    kept = None if every is None else CheckpointConfig(out, every, overwrite=force)
    run = RunFolder(out)
    device = pick_device(settings.data.device)
    use_agg()
    # the learner shows its progress on stdout, which is for data here
    with reserve_output(out, force), locked_run(run, kept is not None) as lock:
        with redirect_stdout(sys.stderr):
            setup, learn = build_learner(settings, device)
            found = None if settings.lr is not None else _find(learn)
            lr = settings.lr if settings.lr is not None else _suggested(found, settings)
            if lock is not None:
                run.prune(set())  # of an earlier training, which --force replaces
                run.delete_failure()
                forget_settings(out)
            if kept is not None:
                keep_settings(out, replace(settings, epochs=setup.epochs), lr, found)
                kept = replace(kept, lock=lock)
            with cli_worded_errors(settings, lr):
                learn.fit_one_cycle(setup.epochs, lr, checkpoint=kept)
        return finish(learn, settings, setup, found, lr, out, as_json)


@contextmanager
def locked_run(run: RunFolder, kept: bool) -> Generator[Lock | None]:
    """The lock of a run, where a training is `kept` in it now or was before; None where there is nothing to lock.

    Raises SettingError, before anything is changed, where another process has it.
    """
    lock = run.lock() if kept or run.checkpoints.is_dir() else None
    try:
        yield lock
    finally:
        if lock is not None:
            run.release(lock)


def finish(
    learn: Learner,
    settings: TrainSettings,
    setup: Setup,
    found: LRCurve | None,
    lr: float,
    out: Path,
    as_json: bool,
) -> int:
    """Score what was trained, write everything to `out`, and say what is there; the exit code."""
    with redirect_stdout(sys.stderr):
        scores = _scores(learn, "valid", "validation")
        tested = setup.data.test_ds is not None and not settings.data.is_dataset
        on_test = {"test": _scores(learn, "test", "test")} if tested else {}
        record = _complete(learn, settings, setup, found, lr, scores)
        record.settings |= {f"{name} on test rows": value for name, value in on_test.get("test", {}).items()}
        files = _write(learn, record, out)
    if as_json:
        about = {"lr": lr, **scores, **on_test, "stopped": record.stopped}
        print(json.dumps({**about, "files": [str(file) for file in files]}))
    else:
        print(*files, sep="\n")
    if record.stopped != "interrupted":
        return 0
    more = f"; go on with: onecycle train --resume {out}" if RunFolder(out).names() else ""
    print(f"interrupted: what was trained so far is in {out}, marked as stopped{more}", file=sys.stderr)
    return INTERRUPTED


def find_lr(settings: TrainSettings, out: Path | None, as_json: bool) -> int:
    """Suggest a learning rate, and draw the curve to `out` where that is given; the exit code."""
    device = pick_device(settings.data.device)
    use_agg()
    with made_folders(out.parent) if out is not None else nullcontext(), redirect_stdout(sys.stderr):
        if out is not None:
            check_writable(out)
        found = _find(build_learner(settings, device)[1])
        suggestion = _suggested(found, settings)
        if out is not None:
            write_figure(found.plot(), out)
    if as_json:
        about = {"suggestion": suggestion, "suggestions": found.suggestions(), "plot": str(out) if out else None}
        print(json.dumps({**about, "lrs": found.lrs, "losses": [_finite(loss) for loss in found.losses]}))
    else:
        print(f"{suggestion:.3g}")
    return 0


def build_learner(settings: TrainSettings, device: torch.device) -> tuple[Setup, Learner]:
    """The learner, with a word on what it will do where that is not the lesson."""
    setup = build_setup(settings, device)
    if not settings.data.is_dataset:
        print(*plan_lines(setup), sep="\n", file=sys.stderr)
    return setup, learner(setup, settings)


def _find(learn: Learner) -> LRFindResult:
    learn.silent = True  # it closes with a hint for notebooks
    found = learn.lr_find()
    learn.silent = None
    for name, value in found.suggestions().items():
        print(f"learning rate, {name + ':':9} {value:.2e}", file=sys.stderr)
    return found


@contextmanager
def cli_worded_errors(settings: TrainSettings, lr: float) -> Generator[None]:
    """Raises NonFiniteLossError, in the words of the command line, where the loss becomes NaN in the block."""
    try:
        yield
    except NonFiniteLossError as error:
        what = str(error).partition(": try ")[0]
        advice = f"a --lr below {lr:.3g}" if settings.lr is None else "--lr auto, or a lower --lr"
        raise NonFiniteLossError(f"{what}: try {advice}") from error


def _suggested(found: LRCurve | None, settings: TrainSettings) -> float:
    """The learning rate to take, and a line that says which: the finder's valley.

    Small batches of a table can make a curve whose valley is noise, at a rate that would train nothing: then a tenth of
    the rate at the curve's minimum is taken, or what `fit_one_cycle` takes.
    """
    suggestions = found.suggestions() if found is not None else {}
    valley, minimum = suggestions.get("valley"), suggestions.get("minimum")
    if settings.data.is_dataset and valley is None:
        raise SettingError("the finder saw too few losses to suggest a learning rate; give one with --lr")
    if valley is not None and (settings.data.is_dataset or valley >= _CREDIBLE):
        lr, why = valley, "valley"
    elif minimum is not None and minimum >= _CREDIBLE:
        lr, why = minimum, f"minimum; the valley is below {_CREDIBLE:g}"
    else:
        lr, why = _USUAL, "the finder's curve is too noisy to tell; --lr sets another"
    print(f"learning rate: {lr:.2e} ({why})", file=sys.stderr)
    return lr


def _scores(learn: Learner, which: SetName, name: str) -> dict[str, Any]:
    """Loss and metrics of the model as it is now, which may be in the middle of an epoch."""
    loss, *values = learn.validate(which)
    scores = dict(zip(map(metric_name, learn.metrics), values, strict=True))
    said = [f"loss {loss:.4f}", *(f"{metric} {value:.4f}" for metric, value in scores.items())]
    print(f"{name}: {', '.join(said)}", file=sys.stderr)
    return {f"{which}_loss": _finite(loss)} | {metric: _finite(value) for metric, value in scores.items()}


def _complete(
    learn: Learner, settings: TrainSettings, setup: Setup, found: LRCurve | None, lr: float, scores: dict[str, Any]
) -> Record:
    """The fit's record with what only this command knows."""
    record = learn.recorder.record
    record.settings = {**_described(settings, setup), **record.settings}
    if record.stopped:  # the last epoch has no row: without this, nothing would say how good the model is
        record.settings |= {f"{name}{WHEN_STOPPED}": value for name, value in scores.items()}
    if found is not None:
        record.lr_curve = {"lrs": found.lrs, "losses": found.losses, "suggestion": lr}
    record.mistakes = summarize_errors(learn)
    return record


def _described(settings: TrainSettings, setup: Setup) -> dict[str, Any]:
    """What the record keeps of the settings besides those that the learner writes down itself."""
    data, hidden = setup.data, model_facts(setup)["hidden"]
    about: dict[str, Any] = {"data": settings.data.source}
    if not settings.data.is_dataset:
        about |= {"target": list(setup.target)} if setup.target else {}
        about |= {"task": data.task, "split": settings.data.split}
        about |= {"train rows": len(data.train_ds), "valid rows": len(data.valid_ds)}
        dropped = [column.name for column in data.columns if column.kind == "dropped"]
        about |= {"dropped": dropped} if dropped else {}
    chosen = "given" if settings.lr is not None else "suggested by the finder"
    return about | {"hidden": hidden, "lr_choice": chosen}


def _write(learn: Learner, record: Record, out: Path) -> list[Path]:
    """Write the files of a run; those of an earlier one are replaced, or removed where this one has no such plot."""
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
