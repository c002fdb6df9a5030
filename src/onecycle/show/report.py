"""The report of a run: one HTML file without scripts or links, made from the record alone."""

import io
import math
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from onecycle.core.files import write_text
from onecycle.core.lr_curve import LRCurve
from onecycle.core.reading import utf8_text
from onecycle.core.record import Record, format_value
from onecycle.errors import printable
from onecycle.show.interpret import plot_predictions
from onecycle.show.plots import plot_confusion_matrix, plot_losses, plot_lr, plot_lr_find, plot_metrics
from onecycle.show.svg import inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHEN_STOPPED = " when stopped"  # suffix of settings that are the scores of a stopped run, shown as tiles
_WIDTH, _HEIGHT = 4.6, 2.9  # of a plot, in inches: text has a readable size with two plots side by side
_METRIC_HEIGHT = 2.0  # of each of several metrics, one below the other
_MAX_CLASSES = 40  # a larger confusion matrix cannot be read
_MAX_TARGETS = 8  # more plots of predicted values would fill the page
_MIN_CURVE = 17  # points of the LR finder's curve, of which the plot leaves out the first 10 and the last 5
_CAPTIONS = {
    "lr_find": "Learning-rate finder: smoothed loss over learning rate",
    "losses": "Training loss (smoothed) and validation loss",
    "lr": "Learning rate and momentum of each step",
    "metrics": "Metrics on the validation set",
    "predictions": "Predicted over actual values of the validation set",
}


def write_report(record: Record, path: str | Path) -> None:
    """Write the report of a record. Raises OutputError if it cannot be written."""
    write_text(Path(path), utf8_text(render_report(record)))


def render_report(record: Record) -> str:
    """Return the report of a record as HTML; what the record lacks is left out."""
    from jinja2 import Environment, PackageLoader

    templates = Environment(
        loader=PackageLoader("onecycle.show"),
        autoescape=True,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    errors = record.mistakes or {}
    return templates.get_template("report.html").render(
        record=record,
        data=_data_name(record),
        tiles=_tiles(record),
        plots=_plots(record),
        confusion=_confusion(errors),
        confused=errors.get("most_confused", []),
        losses=_highest_losses(errors),
        errors=_largest_errors(errors),
        labels=_labels(errors),
        settings={name: _text(value) for name, value in record.settings.items() if not name.endswith(WHEN_STOPPED)},
    )


def _printable(value: Any) -> Any:
    """Return what a template prints: text without control characters, and HTML as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _data_name(record: Record) -> str:
    """Return the data for the title: the last part of an absolute path, which a resumed run has."""
    data = str(record.settings.get("data") or "")
    path = Path(data)
    return path.name if path.is_absolute() and path.name else data


def drawable(record: Record) -> dict[str, Callable[[], "Figure"]]:
    """Return a function that draws it for each plot that the record has the numbers for, by the plot's name."""
    draw: dict[str, Callable[[], Figure]] = {}
    curve, errors = record.lr_curve, record.mistakes or {}
    if curve and len(curve["lrs"]) >= _MIN_CURVE:
        draw["lr_find"] = partial(plot_lr_find, LRCurve(curve["lrs"], curve["losses"]), suggestion=True)
    if record.losses:
        draw["losses"] = partial(plot_losses, record)
        draw["lr"] = partial(plot_lr, record, show_moms=any(mom is not None for mom in record.moms))
    if record.metric_names and record.metrics and record.metrics[0][0] is not None:
        draw["metrics"] = partial(plot_metrics, record)
    if 1 <= len(errors.get("confusion_matrix") or []) <= _MAX_CLASSES:
        draw["confusion"] = partial(plot_confusion_matrix, np.array(errors["confusion_matrix"]), [*errors["classes"]])
    if 1 <= len(errors.get("targets") or []) <= _MAX_TARGETS:
        draw["predictions"] = partial(plot_predictions, errors)
    return draw


def _plots(record: Record) -> list[tuple[str, Markup]]:
    """Return caption and SVG of each plot."""
    draw = drawable(record)
    heights = {
        "metrics": max(_HEIGHT, _METRIC_HEIGHT * len(record.metric_names)),
        "predictions": _HEIGHT * len((record.mistakes or {}).get("targets") or []),
    }
    if "lr" in draw:
        draw["lr"] = partial(_stacked, draw["lr"])
    return [
        (caption, inline_svg(draw[name], name, (_WIDTH, heights.get(name, _HEIGHT))))
        for name, caption in _CAPTIONS.items()
        if name in draw
    ]


def _stacked(draw: Callable[[], "Figure"]) -> "Figure":
    """Return the figure with its plots one below the other, since a page is narrow."""
    from matplotlib.gridspec import GridSpec

    figure = draw()
    grid = GridSpec(len(figure.axes), 1, figure)
    for index, ax in enumerate(figure.axes):
        ax.set_subplotspec(grid[index])
    return figure


def _tiles(record: Record) -> list[tuple[str, str]]:
    """Return the most important numbers of the run: label and value."""
    scores = {name: value for name, value in record.settings.items() if name.endswith(WHEN_STOPPED)}
    if not scores and record.epochs:
        scores = dict(
            zip(["valid_loss", *record.metric_names], [record.val_losses[-1], *record.metrics[-1]], strict=True)
        )
    tiles = [(name, _score(value)) for name, value in scores.items() if value is not None]
    if record.losses:
        tiles.append(("train_loss", _score(record.losses[-1])))
        peak = "highest learning rate so far" if record.stopped else "peak learning rate"
        tiles.append((peak, f"{max(record.lrs):.2e}"))
    done, planned = len(record.epochs), record.settings.get("epochs")
    tiles.append(("epochs", f"{done} of {planned}" if planned is not None and planned != done else str(done)))
    if record.seconds:
        tiles.append(("seconds", f"{sum(record.seconds):.1f}"))
    return tiles


def _confusion(errors: dict[str, Any]) -> dict[str, Any] | None:
    """Return classes and rows of the confusion matrix; a cell is its count and the strength of its colour, 0 to 1."""
    if not errors.get("confusion_matrix"):
        return None
    classes, counts = errors["classes"], errors["confusion_matrix"]
    if len(classes) > _MAX_CLASSES:
        return {"classes": classes, "rows": None}
    # right predictions would outshine the errors: each kind has its own scale
    most_wrong = max((n for i, row in enumerate(counts) for j, n in enumerate(row) if i != j), default=0) or 1
    most_right = max((row[i] for i, row in enumerate(counts)), default=0) or 1
    rows = [
        [(n, round(n / most_right if i == j else math.sqrt(n / most_wrong), 3)) for j, n in enumerate(row)]
        for i, row in enumerate(counts)
    ]
    return {"classes": classes, "rows": rows}


def _highest_losses(errors: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows with the highest loss, some of them perhaps right, with a verdict and the image's data URI."""
    return [
        {**row, "verdict": _verdict(**row), "image": _png(row["image"]) if row.get("image") else None}
        for row in errors.get("top_losses", [])
    ]


def _verdict(actual: str, predicted: str, loss: float, **_: Any) -> str:
    if predicted == actual:
        return f"{actual}, right, p {math.exp(-loss):.2f}"  # the loss is -log p of the row's class
    return f"is {actual}, predicted {predicted}"


def _largest_errors(errors: dict[str, Any]) -> list[dict[str, str]]:
    """Return the rows of a regression with the largest errors, as text; with the target if there are several."""
    has_several = len(errors.get("targets", [])) > 1
    return [
        {
            "row": f"{row['row']}, {row['target']}" if has_several else str(row["row"]),
            "actual": _text(row["actual"]),
            "predicted": _text(row["predicted"]),
            "error": f"{row['predicted'] - row['actual']:+.4g}",
        }
        for row in errors.get("top_errors", [])
    ]


def _labels(errors: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the counts of each label of a multilabel task, with precision and recall as text."""

    def ratio(count: int, total: int) -> str:
        return f"{count / total:.4f}" if total else "–"

    return [
        {**row, "precision": ratio(row["right"], row["predicted"]), "recall": ratio(row["right"], row["actual"])}
        for row in errors.get("labels", [])
    ]


def _png(pixels: list[Any]) -> str:
    """Return a gray or RGB image of 0 to 255 as a data URI."""
    from matplotlib import pyplot as plt

    file = io.BytesIO()
    plt.imsave(file, np.array(pixels, dtype=np.uint8), cmap="gray", vmin=0, vmax=255, format="png")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def _score(value: float) -> str:
    """Format a score of a tile: four decimals, or four digits if it is very small or large."""
    return f"{value:.4f}" if not value or 1e-3 <= abs(value) < 1e5 or not math.isfinite(value) else f"{value:.4g}"


def _text(value: Any) -> str:
    """Format a setting."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else format_value(value)
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value) or "none"
    return "none" if value is None else str(value)
