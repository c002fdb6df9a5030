"""The report of a run: one HTML file that needs nothing else, made from the record alone."""

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
from onecycle.core.record import LRCurve, Record, format_value
from onecycle.show.interpret import plot_predictions
from onecycle.show.plots import plot_confusion_matrix, plot_losses, plot_lr, plot_lr_find, plot_metrics
from onecycle.show.svg import inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WHEN_STOPPED = " when stopped"  # ends the names of settings that are no choices but say how a stopped run ended
_WIDTH, _HEIGHT = 4.6, 2.9  # of a plot, in inches: text has a readable size where two stand side by side
_STACKED_HEIGHT = 2.0  # of one of several metrics below each other
_MOST_CLASSES = 40  # a larger confusion matrix cannot be read
_MOST_TARGETS = 8  # more plots of predicted values would fill the page
_MIN_CURVE = 17  # points of the finder's curve, of which the plot leaves out the first 10 and the last 5
_CAPTIONS = {
    "lr_find": "Learning-rate finder: smoothed loss over learning rate",
    "losses": "Training loss (smoothed) and validation loss",
    "lr": "Learning rate and momentum of each step",
    "metrics": "Metrics on the validation set",
    "predictions": "Predicted over actual values of the validation set",
}


def write_report(record: Record, path: str | Path) -> None:
    """Write the report of `record` to `path`. Raises OutputError where it cannot be written."""
    write_text(Path(path), render_report(record))


def render_report(record: Record) -> str:
    """The report of `record` as HTML without scripts or links; what the record lacks is left out."""
    from jinja2 import Environment, PackageLoader

    templates = Environment(
        loader=PackageLoader("onecycle.show"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return templates.get_template("report.html").render(
        record=record,
        data=_data_name(record),
        tiles=_tiles(record),
        plots=_plots(record),
        confusion=_confusion(record.mistakes),
        confused=(record.mistakes or {}).get("most_confused", []),
        losses=_highest_losses(record.mistakes),
        errors=_largest_errors(record.mistakes),
        labels=_labels(record.mistakes),
        settings={name: _text(value) for name, value in record.settings.items() if not name.endswith(WHEN_STOPPED)},
    )


def _data_name(record: Record) -> str:
    """What the run was trained on, for the title: of an absolute path, which a resumed run has, the last part."""
    data = str(record.settings.get("data") or "")
    path = Path(data)
    return path.name if path.is_absolute() and path.name else data


def drawable(record: Record) -> dict[str, Callable[[], "Figure"]]:
    """For each plot that `record` has the numbers for, its name and the function that draws it."""
    draw: dict[str, Callable[[], Figure]] = {}
    curve = record.lr_curve
    if curve and len(curve["lrs"]) >= _MIN_CURVE:
        draw["lr_find"] = partial(plot_lr_find, LRCurve(curve["lrs"], curve["losses"]), suggestion=True)
    if record.losses:
        draw["losses"] = partial(plot_losses, record)
        draw["lr"] = partial(plot_lr, record, show_moms=any(mom is not None for mom in record.moms))
    if record.metric_names and record.metrics and record.metrics[0][0] is not None:
        draw["metrics"] = partial(plot_metrics, record)
    mistakes = record.mistakes
    if mistakes and len(mistakes.get("confusion_matrix") or []) in range(1, _MOST_CLASSES + 1):
        draw["confusion"] = partial(
            plot_confusion_matrix, np.array(mistakes["confusion_matrix"]), [*mistakes["classes"]]
        )
    if mistakes and len(mistakes.get("targets") or []) in range(1, _MOST_TARGETS + 1):
        draw["predictions"] = partial(plot_predictions, mistakes)
    return draw


def _plots(record: Record) -> list[tuple[str, Markup]]:
    """Caption and SVG of each plot."""
    draw = drawable(record)
    plots: list[tuple[str, Markup]] = []
    for name in (name for name in _CAPTIONS if name in draw):
        targets = len((record.mistakes or {}).get("targets") or [])
        metrics = len(record.metric_names)
        height = _HEIGHT * targets if name == "predictions" else _HEIGHT
        if name == "metrics" and metrics > 1:
            height = _STACKED_HEIGHT * metrics
        plot = partial(_stacked, draw[name]) if name == "lr" else draw[name]
        plots.append((_CAPTIONS[name], inline_svg(plot, name, (_WIDTH, height))))
    return plots


def _stacked(draw: Callable[[], "Figure"]) -> "Figure":
    """The figure with its plots below each other instead of side by side: a page has less room than a screen."""
    from matplotlib.gridspec import GridSpec

    figure = draw()
    grid = GridSpec(len(figure.axes), 1, figure)
    for index, ax in enumerate(figure.axes):
        ax.set_subplotspec(grid[index])
    return figure


def _tiles(record: Record) -> list[tuple[str, str]]:
    """The run in a few numbers: label and value."""
    tiles: list[tuple[str, str]] = []
    stopped = {name: value for name, value in record.settings.items() if name.endswith(WHEN_STOPPED)}
    if stopped:
        tiles += [(name, _score(value)) for name, value in stopped.items() if value is not None]
    elif record.epochs:
        names = ["valid_loss", *record.metric_names]
        values = [record.val_losses[-1], *record.metrics[-1]]
        tiles += [(name, _score(value)) for name, value in zip(names, values, strict=True) if value is not None]
    if record.losses:
        tiles.append(("train_loss", _score(record.losses[-1])))
        peak = "highest learning rate so far" if record.stopped else "peak learning rate"
        tiles.append((peak, f"{max(record.lrs):.2e}"))
    tiles.append(("epochs", _epochs(record)))
    if record.seconds:
        tiles.append(("seconds", f"{sum(record.seconds):.1f}"))
    return tiles


def _epochs(record: Record) -> str:
    done, planned = len(record.epochs), record.settings.get("epochs")
    return f"{done} of {planned}" if planned is not None and planned != done else str(done)


def _confusion(mistakes: dict[str, Any] | None) -> dict[str, Any] | None:
    """Classes and rows of the confusion matrix; each cell is its count and, from 0 to 1, how much colour it gets."""
    if not mistakes or not mistakes.get("confusion_matrix"):
        return None
    classes, counts = mistakes["classes"], mistakes["confusion_matrix"]
    if len(classes) > _MOST_CLASSES:
        return {"classes": classes, "rows": None}
    # the right answers would drown the mistakes: each gets a scale of its own
    worst = max((n for i, row in enumerate(counts) for j, n in enumerate(row) if i != j), default=0) or 1
    best = max((row[i] for i, row in enumerate(counts)), default=0) or 1
    rows = [
        [(n, round(n / best if i == j else math.sqrt(n / worst), 3)) for j, n in enumerate(row)]
        for i, row in enumerate(counts)
    ]
    return {"classes": classes, "rows": rows}


def _highest_losses(mistakes: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The rows with the highest loss, right ones among them: what to say of each, and its image."""
    rows = (mistakes or {}).get("top_losses", [])
    return [
        {**row, "verdict": _verdict(**row), "image": _png(row["image"]) if row.get("image") else None} for row in rows
    ]


def _verdict(actual: str, predicted: str, loss: float, **_: Any) -> str:
    if predicted == actual:
        return f"{actual}, right, p {math.exp(-loss):.2f}"  # the loss is -log p of the row's class
    return f"is {actual}, predicted {predicted}"


def _largest_errors(mistakes: dict[str, Any] | None) -> list[dict[str, str]]:
    """The rows of a regression with the largest errors, as text; the target is named where there are several."""
    rows, several = (mistakes or {}).get("top_errors", []), len((mistakes or {}).get("targets", [])) > 1
    return [
        {
            "row": f"{row['row']}, {row['target']}" if several else str(row["row"]),
            "actual": _text(row["actual"]),
            "predicted": _text(row["predicted"]),
            "error": f"{row['predicted'] - row['actual']:+.4g}",
        }
        for row in rows
    ]


def _labels(mistakes: dict[str, Any] | None) -> list[dict[str, Any]]:
    """What became of each of several labels, with precision and recall as text."""

    def share(part: int, whole: int) -> str:
        return f"{part / whole:.4f}" if whole else "–"

    return [
        {**row, "precision": share(row["right"], row["predicted"]), "recall": share(row["right"], row["actual"])}
        for row in (mistakes or {}).get("labels", [])
    ]


def _png(pixels: list[Any]) -> str:
    """A data URI of an image of 0 to 255, gray or in colours."""
    from matplotlib import pyplot as plt

    file = io.BytesIO()
    plt.imsave(file, np.array(pixels, dtype=np.uint8), cmap="gray", vmin=0, vmax=255, format="png")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def _score(value: float) -> str:
    """A score in a tile: four decimals, or four digits where that would say too little or too much."""
    return f"{value:.4f}" if not value or 1e-3 <= abs(value) < 1e5 or not math.isfinite(value) else f"{value:.4g}"


def _text(value: Any) -> str:
    """A setting as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else format_value(value)
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value) or "none"
    return "none" if value is None else str(value)
