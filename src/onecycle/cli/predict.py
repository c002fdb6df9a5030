"""`onecycle predict`: predict each row of a file with the model of a run, to stdout or into a table."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.cli.prediction_output import PredictionFormatter, escape, unused_names
from onecycle.cli.prediction_rows import RowBatch, read_rows
from onecycle.cli.run_files import MODEL, RECORD, check_new, is_begun, is_resumable, remove_new_folders_on_error
from onecycle.cli.setup import metrics_for
from onecycle.cli.table_writer import TEXT_SUFFIXES, FormulaCells, open_table_writer
from onecycle.cli.terminal import print_lines
from onecycle.core.archives import MANIFEST
from onecycle.core.streams import unfiltered
from onecycle.data.loaders import InMemoryLoader
from onecycle.errors import FileError, SettingError
from onecycle.predictor import Predictor, load_predictor
from onecycle.tables.csv_dialect import CsvStyle
from onecycle.tables.read import text_style
from onecycle.train.evaluate import predict as predict_batches
from onecycle.train.metrics import metric_name

_BATCH_SIZE = 4096
_LINES_PER_PRINT = 65_536


def predict(
    run: Path,
    file: Path,
    out: Path | None,
    force: bool,
    device: str | None,
    as_json: bool,
    escape_formulas: bool = False,
) -> int:
    """Print the prediction for each row of `file`, or write them beside the rows' columns to `out`.

    Return the exit code.
    """
    predictor = load_predictor(_find_bundle(run), device=device)
    formatter, scorer = PredictionFormatter(predictor), _Scorer(predictor, enabled=as_json)
    if escape_formulas and (out is None or out.suffix.lower() not in TEXT_SUFFIXES):
        raise SettingError("--escape-formulas is for -o FILE.csv or .tsv: nothing else is run by a spreadsheet")
    predicted = _predict(read_rows(file, predictor, out, with_targets=as_json), predictor, scorer)
    if out is None:
        _print(predicted, formatter, scorer, as_json)
        return 0
    check_new(out, force, "-o")
    with remove_new_folders_on_error(out.parent):
        rows = _write(predicted, formatter, out, text_style(file), FormulaCells(escape_formulas))
    if as_json:
        print(json.dumps({"file": str(out), "rows": rows, **scorer.scores()}))
    else:
        print_lines(out)
        print_lines(f"{out}: {rows:,} rows", file=sys.stderr)
    return 0


def _find_bundle(run: Path) -> Path:
    """Return the bundle in the folder of a run, or `run` itself if it is one. Raise FileError if there is none."""
    if run.is_file():
        raise FileError(f"{run} is a file; the RUN folder comes first: onecycle predict RUN FILE")
    if (run / MODEL).is_dir() or (run / RECORD).is_file():
        return run / MODEL
    if is_resumable(run) or is_begun(run):
        raise FileError(f"{run}: its training is not finished; resume it: onecycle train --resume {run}")
    if RunFolder(run).is_python_run():
        raise FileError(f"{run}: made in Python, and has no bundle; learn.export({str(run / MODEL)!r}) makes one")
    if run.is_dir() and not (run / MANIFEST).is_file():
        raise FileError(
            f"{run} holds no run or bundle; expected a folder that `onecycle train` or `learn.export` wrote"
        )
    return run


def _predict(batches: Iterable[RowBatch], predictor: Predictor, scorer: "_Scorer") -> Iterator[tuple[RowBatch, Tensor]]:
    """Yield each batch with its predictions: probabilities, or values in the target's units."""
    for batch in batches:
        dataset, scale = TensorDataset(batch.x), predictor.pixel_scale
        loader = InMemoryLoader(dataset, _BATCH_SIZE, predictor.device, seed=0, pixel_scale=scale)
        outputs = predictor.main_output(predict_batches(predictor.model, loader.epoch(0))[0]).float()
        scorer.add(outputs, batch.y)
        predictions = predictor.as_predictions(outputs)
        predictor.check_predictions(predictions)
        yield batch, predictions


def _print(
    predicted: Iterable[tuple[RowBatch, Tensor]], formatter: PredictionFormatter, scorer: "_Scorer", as_json: bool
) -> None:
    # nothing is printed before all rows are predicted
    predictions = [(_image_names(batch), preds) for batch, preds in predicted]
    if as_json:
        objects: list[dict[str, Any]] = []
        for names, preds in predictions:
            named = [{"file": name} for name in names] or [{}] * len(preds)
            objects += [name | entry for name, entry in zip(named, formatter.objects(preds), strict=True)]
        print(json.dumps({"predictions": objects, **scorer.scores()}))
        return
    for names, preds in predictions:
        for start in range(0, len(preds), _LINES_PER_PRINT):
            lines = formatter.lines(preds[start : start + _LINES_PER_PRINT])
            if names:
                lines = [f"{escape(name)}\t{line}" for name, line in zip(names[start:], lines, strict=False)]
            print("\n".join(lines))


def _image_names(batch: RowBatch) -> list[str]:
    """Return the names of several images, so that their predictions can be told apart; of other rows none."""
    is_images = batch.table.schema.names == ["file"] and batch.table.num_rows > 1
    return batch.table.column("file").to_pylist() if is_images else []


def _write(
    predicted: Iterator[tuple[RowBatch, Tensor]],
    formatter: PredictionFormatter,
    out: Path,
    style: CsvStyle | None,
    formulas: FormulaCells,
) -> int:
    """Write the rows with their predictions to a table, a CSV file in `style`. Return their number."""
    rows, show_progress, names = 0, sys.stderr.isatty(), list[str]()
    style = style or CsvStyle()
    if out.suffix.lower() == ".tsv" or (style.delimiter == "\t" and out.suffix.lower() == ".csv"):
        style = replace(style, delimiter="\t" if out.suffix.lower() == ".tsv" else ",")
    first = next(predicted)  # a file that cannot be read leaves nothing behind
    with open_table_writer(out, style, formulas) as write:
        for batch, preds in chain([first], predicted):
            table, columns = batch.table, formatter.columns(preds)
            if not names:
                names = unused_names([*columns], table.schema.names)
                if names != [*columns]:
                    note = f"the file has columns of these names; the new ones are {', '.join(names)}"
                    print_lines(note, file=sys.stderr)
            for name, column in zip(names, columns.values(), strict=True):
                table = table.append_column(name, column)
            write(table)
            rows += table.num_rows
            if show_progress:
                # the cursor stays at the start of the line, where a warning takes its place
                print(f"{rows:,} rows predicted", end="\r", file=unfiltered(sys.stderr), flush=True)
    if show_progress:
        print("\033[K", end="", file=unfiltered(sys.stderr))
    if message := formulas.message():
        print_lines(f"{out}: {message}", file=sys.stderr)
    return rows


class _Scorer:
    """Computes the metrics over all rows, if they are `enabled` and all targets are known."""

    def __init__(self, predictor: Predictor, enabled: bool) -> None:
        self._target = predictor.target if enabled else None
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []
        self._all_known = True

    def add(self, outputs: Tensor, targets: Tensor | None) -> None:
        """Add a batch of model outputs and targets."""
        self._all_known = self._all_known and targets is not None
        if self._target is not None and self._all_known and targets is not None:
            self._outputs.append(outputs)
            self._targets.append(targets)

    def scores(self) -> dict[str, Any]:
        """Return {"scores": {metric: value}}, None for the scores if a target is not known; {} if not enabled."""
        target = self._target
        if target is None:
            return {}
        if not self._all_known or not self._targets:
            return {"scores": None}
        outputs, targets = torch.cat(self._outputs), torch.cat(self._targets)
        if target.task == "regression":
            targets = target.inverse_transform(targets)
            outputs = target.inverse_transform(outputs.reshape(targets.shape))
        metrics = metrics_for(target.task, target.outputs)
        values = {metric_name(metric): float(metric(outputs, targets)) for metric in metrics}
        return {"scores": {name: None if value != value else value for name, value in values.items()}}
