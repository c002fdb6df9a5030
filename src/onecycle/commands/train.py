"""`onecycle train` and `onecycle lr-find`: settings → learner → files."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from onecycle.commands.files import (
    MODEL,
    PLOTS,
    RECORD,
    REPORT,
    check_writable,
    claimed,
    use_agg,
    write_figure,
)
from onecycle.commands.settings import TrainSettings
from onecycle.core.device import borrowed_generators, pick_device, seed_generators
from onecycle.core.errors import NonFiniteLossError, SettingError
from onecycle.core.models import MLP
from onecycle.core.record import Record
from onecycle.data.bunch import mnist
from onecycle.learner import Learner
from onecycle.show.interpret import ClassificationInterpretation
from onecycle.show.report import WHEN_STOPPED, drawable, write_report
from onecycle.train.lr_find import LRFindResult
from onecycle.train.metrics import accuracy

INTERRUPTED = 130


def train(settings: TrainSettings, out: Path, force: bool, as_json: bool) -> int:
    """Find a learning rate, train for one cycle, write everything to `out`; the exit code."""
    device = pick_device(settings.device)
    use_agg()
    # the learner shows its progress on stdout, which is for data here
    with claimed(out, force), redirect_stdout(sys.stderr):
        learn = _learner(settings, device)
        found = None if settings.lr is not None else _find(learn)
        lr = settings.lr if settings.lr is not None else _suggested(found)
        _fit(learn, settings, lr)
        scores = _validate(learn)
        record = _complete(learn, settings, found, scores)
        files = _write(learn, record, out)
    if as_json:
        print(json.dumps({"lr": lr, **scores, "stopped": record.stopped, "files": [str(file) for file in files]}))
    else:
        print(*files, sep="\n")
    if record.stopped != "interrupted":
        return 0
    print(f"interrupted: what was trained so far is in {out}, marked as stopped", file=sys.stderr)
    return INTERRUPTED


def find_lr(settings: TrainSettings, out: Path | None, as_json: bool) -> int:
    """Suggest a learning rate, and draw the curve to `out` where that is given; the exit code."""
    device = pick_device(settings.device)
    if out is not None:
        check_writable(out)
    use_agg()
    with redirect_stdout(sys.stderr):
        found = _find(_learner(settings, device))
    suggestion = _suggested(found)
    if out is not None:
        write_figure(found.plot(), out)
    if as_json:
        about = {"suggestion": suggestion, "suggestions": found.suggestions(), "plot": str(out) if out else None}
        print(json.dumps({**about, "lrs": found.lrs, "losses": [_finite(loss) for loss in found.losses]}))
    else:
        print(f"{suggestion:.3g}")
    return 0


def _learner(settings: TrainSettings, device: torch.device) -> Learner:
    data = mnist(bs=settings.bs, seed=settings.seed, device=device)
    with borrowed_generators(device):
        seed_generators(settings.seed, device)
        model = MLP(784, *settings.hidden, 10)
    return Learner(data, model, metrics=accuracy, wd=settings.wd)


def _find(learn: Learner) -> LRFindResult:
    learn.silent = True  # it closes with a hint for notebooks
    found = learn.lr_find()
    learn.silent = None
    for name, value in found.suggestions().items():
        print(f"learning rate, {name + ':':9} {value:.2e}", file=sys.stderr)
    return found


def _fit(learn: Learner, settings: TrainSettings, lr: float) -> None:
    """Train for one cycle. Raises NonFiniteLossError, in the words of the command line, where the loss becomes NaN."""
    try:
        learn.fit_one_cycle(settings.epochs, lr)
    except NonFiniteLossError as error:
        what = str(error).partition(": try ")[0]
        advice = f"a --lr below {lr:.3g}" if settings.lr is None else "--lr auto, or a lower --lr"
        raise NonFiniteLossError(f"{what}: try {advice}") from error


def _suggested(found: LRFindResult | None) -> float:
    if found is None or found.suggestion is None:
        raise SettingError("the finder saw too few losses to suggest a learning rate; give one with --lr")
    return found.suggestion


def _validate(learn: Learner) -> dict[str, Any]:
    """The validation loss and accuracy of the model as it is now, which may be in the middle of an epoch."""
    loss, correct = learn.validate()
    print(f"validation: loss {loss:.4f}, accuracy {correct:.4f}", file=sys.stderr)
    return {"valid_loss": _finite(loss), "accuracy": correct}


def _complete(learn: Learner, settings: TrainSettings, found: LRFindResult | None, scores: dict[str, Any]) -> Record:
    """The fit's record with what only this command knows."""
    record = learn.recorder.record
    record.settings = {**settings.describe(), **record.settings}
    if record.stopped:  # the last epoch has no row: without this, nothing would say how good the model is
        record.settings |= {f"{name}{WHEN_STOPPED}": value for name, value in scores.items()}
    if found is not None:
        record.lr_curve = {"lrs": found.lrs, "losses": found.losses, "suggestion": found.suggestion}
    record.mistakes = ClassificationInterpretation.from_learner(learn).summary()
    return record


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
