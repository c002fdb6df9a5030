"""`onecycle predict`: a bundle and a file → a prediction for each row, on stdout or as a table."""

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.cli.prediction_rows import RowBatch, read_rows
from onecycle.cli.prediction_text import PredictionFormatter, free_names
from onecycle.cli.run_files import BUNDLE_STATE, MODEL, RECORD, check_new, made_folders
from onecycle.cli.run_settings import can_be_resumed
from onecycle.cli.setup import metrics_of
from onecycle.data.loaders import InMemoryLoader
from onecycle.errors import FileError
from onecycle.predictor import Predictor, load_predictor
from onecycle.train.evaluate import predict as predict_batches
from onecycle.train.metrics import metric_name

_BATCH = 4096
_LINES = 65_536  # that are made at once


def predict(run: Path, file: Path, out: Path | None, force: bool, device: str | None, as_json: bool) -> int:
    """Print the prediction for each row of `file`, or write them with the rows' columns to `out`; the exit code."""
    learn = load_predictor(_bundle(run), device=device)
    answers, scores = PredictionFormatter(learn), _Scores(learn, asked=as_json)
    if out is None:
        _print(_predicted(_pieces(file, learn, False, as_json), learn, scores), answers, scores, as_json)
        return 0
    check_new(out, force, "-o")
    with made_folders(out.parent):
        rows = _write(_predicted(_pieces(file, learn, True, as_json), learn, scores), answers, out)
    if as_json:
        print(json.dumps({"file": str(out), "rows": rows, **scores.found()}))
    else:
        print(out)
        print(f"{out}: {rows:,} rows", file=sys.stderr)
    return 0


def _pieces(file: Path, learn: Predictor, stream: bool, scored: bool) -> Iterator[RowBatch]:
    if (features := learn.features) is None:
        return read_rows(file, learn)
    from onecycle.cli.prediction_rows import read_table_rows

    return read_table_rows(file, features, learn.target, stream, scored)


def _predicted(pieces: Iterable[RowBatch], learn: Predictor, scores: "_Scores") -> Iterator[tuple[RowBatch, Tensor]]:
    """Each piece with its predictions: probabilities, or values in the target's units."""
    for piece in pieces:
        dataset = TensorDataset(piece.x)
        loader = InMemoryLoader(dataset, _BATCH, learn.device, seed=0, pixel_scale=learn.pixel_scale)
        outputs = predict_batches(learn.model, loader.epoch(0))[0].float()
        scores.add(outputs, piece.y)
        yield piece, learn.as_predictions(outputs)


def _print(
    predicted: Iterable[tuple[RowBatch, Tensor]], answers: PredictionFormatter, scores: "_Scores", as_json: bool
) -> None:
    # nothing is printed before all is well
    made = [(_file_names(piece.table, len(preds)), preds) for piece, preds in predicted]
    if as_json:
        objects = [entry for names, preds in made for entry in _named(names, answers.objects(preds))]
        print(json.dumps({"predictions": objects, **scores.found()}))
        return
    for names, preds in made:
        for start in range(0, len(preds), _LINES):
            lines = answers.lines(preds[start : start + _LINES])
            shown = [f"{name}\t{line}" for name, line in zip(names[start:], lines, strict=False)] if names else lines
            print(*shown, sep="\n")


def _named(names: list[str], objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"file": name, **entry} for name, entry in zip(names, objects, strict=True)] if names else objects


def _file_names(table: Any, rows: int) -> list[str]:
    """The names of several images, without which nobody knows which is which; of other rows none."""
    return table.column("file").to_pylist() if table.schema.names == ["file"] and rows > 1 else []


def _write(predicted: Iterator[tuple[RowBatch, Tensor]], answers: PredictionFormatter, out: Path) -> int:
    from onecycle.cli.table_writer import table_writer

    rows, live, names = 0, sys.stderr.isatty(), list[str]()
    first = next(predicted)  # a file that cannot be read leaves nothing behind
    with table_writer(out) as write:
        for piece, preds in chain([first], predicted):
            table, columns = piece.table, answers.columns(preds)
            if not names:
                names = free_names([*columns], table.schema.names)
                if names != [*columns]:
                    print(f"the file has columns of these names; the new ones are {', '.join(names)}", file=sys.stderr)
            for name, column in zip(names, columns.values(), strict=True):
                table = table.append_column(name, column)
            write(table)
            rows += table.num_rows
            if live:
                print(f"\r{rows:,} rows predicted", end="", file=sys.stderr, flush=True)
    if live:
        print("\r\033[K", end="", file=sys.stderr)
    return rows


class _Scores:
    """The metrics over all rows, where they are asked for and all targets are known."""

    def __init__(self, learn: Predictor, asked: bool) -> None:
        self._learn, self._asked = learn, asked and learn.target is not None
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._known = self._asked

    def add(self, outputs: Tensor, targets: Tensor | None) -> None:
        """Take in a piece's outputs of the model and its targets."""
        self._known = self._known and targets is not None
        if self._known and targets is not None:
            self._outputs.append(outputs)
            self._targets.append(targets)
        else:
            self._outputs, self._targets = [], []

    def found(self) -> dict[str, Any]:
        """{"scores": {metric: value}}, null where the targets are not known; nothing where they were not asked for."""
        target = self._learn.target
        if not self._asked or target is None:
            return {}
        if not self._known or not self._targets:
            return {"scores": None}
        outputs, targets = torch.cat(self._outputs), torch.cat(self._targets)
        if target.task == "regression":
            targets = target.inverse_transform(targets)
            outputs = target.inverse_transform(outputs.reshape(targets.shape))
        scores = {
            metric_name(metric): float(metric(outputs, targets)) for metric in metrics_of(target.task, target.outputs)
        }
        return {"scores": {name: value if value == value else None for name, value in scores.items()}}


def _bundle(run: Path) -> Path:
    """The bundle in the folder of a run, or `run` itself where it is one.

    Raises FileError for a file, and for a folder that holds neither.
    """
    if run.is_file():
        raise FileError(f"{run} is a file; the RUN folder comes first: onecycle predict RUN FILE")
    if (run / MODEL).is_dir() or (run / RECORD).is_file():
        return run / MODEL
    if can_be_resumed(run):
        raise FileError(f"{run}: its training is not finished; go on with it: onecycle train --resume {run}")
    if RunFolder(run).is_python_run():
        raise FileError(f"{run}: made in Python, and has no bundle; learn.export({str(run / MODEL)!r}) makes one")
    if run.is_dir() and not (run / BUNDLE_STATE).is_file():
        raise FileError(
            f"{run} holds no run or bundle; expected a folder that `onecycle train` or `learn.export` wrote"
        )
    return run
