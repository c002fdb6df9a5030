"""Plots of a record. Each function returns a figure of pyplot, which a notebook shows once."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from onecycle.core.lr_curve import LRCurve
from onecycle.core.record import Record
from onecycle.errors import SettingError, printable
from onecycle.show.fonts import add_fallback_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_lr_find(curve: LRCurve, skip_start: int = 10, skip_end: int = 5, suggestion: bool = False) -> "Figure":
    """Plot loss over learning rate (log scale) without the first and last points; `suggestion` marks that to take."""
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FormatStrFormatter

    end = len(curve.lrs) - skip_end
    if end - skip_start < 2:
        raise SettingError(
            f"{len(curve.lrs)} points, of which {skip_start} and {skip_end} are skipped, leave none to plot"
        )
    figure, ax = plt.subplots()
    ax.plot(curve.lrs[skip_start:end], curve.losses[skip_start:end])
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FormatStrFormatter("%.0e"))
    ax.set(xlabel="Learning Rate", ylabel="Loss")
    if suggestion:
        lr = curve.choice
        if lr.is_certain:
            loss = curve.losses[int(np.argmin(np.abs(np.log(curve.lrs) - np.log(lr))))]
            ax.plot(lr, loss, "o", color="tab:red", markersize=8, label=f"suggestion {lr:.2e}")
        else:  # which no point of the curve says
            ax.axvline(lr, color="tab:gray", linestyle="--", label=f"default {lr:.2e}: the curve says nothing")
        ax.legend()
    return finish_figure(figure)


def plot_lr(record: Record, show_moms: bool = False) -> "Figure":
    """Plot the learning rate of each batch, and with `show_moms` the momentum beside it."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4), squeeze=False) if show_moms else plt.subplots(squeeze=False)
    axes[0, 0].plot(record.lrs)
    axes[0, 0].set(xlabel="Iterations", ylabel="Learning Rate")
    if show_moms:
        axes[0, 1].plot([np.nan if mom is None else mom for mom in record.moms])
        axes[0, 1].set(xlabel="Iterations", ylabel="Momentum")
    return finish_figure(figure)


def plot_losses(record: Record) -> "Figure":
    """Plot the smoothed training loss, and the validation loss at the end of each epoch, over the batches."""
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots()
    ax.plot(record.losses, label="Train")
    ends = np.cumsum(record.nb_batches)
    points = [(end, loss) for end, loss in zip(ends, record.val_losses, strict=True) if loss is not None]
    if points:  # a single epoch is a single point, which a line alone would not show
        ax.plot(*zip(*points, strict=True), label="Validation", marker="o", markersize=4)
    ax.set(xlabel="Batches processed", ylabel="Loss")
    ax.legend()
    return finish_figure(figure)


def plot_metrics(record: Record) -> "Figure":
    """Plot each metric at the end of each epoch over the batches, one below the other."""
    from matplotlib import pyplot as plt

    count = len(record.metric_names)
    if not count or not record.metrics or record.metrics[0][0] is None:
        raise SettingError(
            "there are no metrics to plot; give the learner some (metrics=accuracy) and a validation set"
        )
    figure, axes = plt.subplots(count, 1, figsize=(6, 4 * count), squeeze=False)
    ends = np.cumsum(record.nb_batches)
    for i, name in enumerate(record.metric_names):
        values = [np.nan if value is None else value for value in (row[i] for row in record.metrics)]
        ax: Axes = axes[i, 0]
        ax.plot(ends, values, marker="o", markersize=4)
        ax.set_xlim(left=0)
        if len(values) == 1 and np.isfinite(values[0]):  # an axis around a single dot says little
            ax.annotate(
                f"{values[0]:.4f}", (ends[0], values[0]), (-8, 0), textcoords="offset points", ha="right", va="center"
            )
        if all(0 <= value <= 1 for value in values):  # a fraction: beyond 0 and 1 only as much space as a dot needs
            low, high = ax.get_ylim()
            margin = 0.02 * (high - low)
            ax.set_ylim(max(low, -margin), min(high, 1 + margin))
        ax.set(xlabel="Batches processed", ylabel=printable(name))
    return finish_figure(figure)


def plot_examples(rows: "np.ndarray[Any, Any]", titles: list[str], columns: int = 3) -> "Figure":
    """Plot a grid of examples with titles: images if the rows are images (see `as_image`), else lines."""
    from matplotlib import pyplot as plt

    lines = -(-len(rows) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(1.8 * columns, 2 * lines), squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, row, title in zip(axes.flat, rows, titles, strict=False):
        image = as_image(row)
        if image is not None:
            ax.imshow(image, cmap="gray")
        else:
            ax.plot(row.ravel())
            ax.set_axis_on()
            ax.tick_params(labelsize=6)
        ax.set_title(printable(title), fontsize=9)
    return finish_figure(figure)


def plot_confusion_matrix(counts: "np.ndarray[Any, Any]", classes: list[Any]) -> "Figure":
    """Plot how often each class (row) was predicted as each class (column)."""
    from matplotlib import pyplot as plt

    size = max(4.0, 0.55 * len(classes))
    figure, ax = plt.subplots(figsize=(size, size), layout="constrained")
    ax.imshow(counts, cmap="Blues")
    ticks, names = range(len(classes)), [printable(str(name), one_line=True) for name in classes]
    ax.set_xticks(ticks, names, rotation=90 if len(classes) > 12 else 0)
    ax.set_yticks(ticks, names)
    ax.set(xlabel="Predicted", ylabel="Actual")
    if len(classes) <= 30:
        dark = counts.max() / 2
        for i, j in np.ndindex(*counts.shape):
            if counts[i, j]:
                color = "white" if counts[i, j] > dark else "black"
                ax.text(j, i, str(counts[i, j]), ha="center", va="center", color=color, fontsize=8)
    return finish_figure(figure)


def finish_figure(figure: "Figure") -> "Figure":
    """Add fallback fonts to a figure, keep names such as "a $x" text, and make a notebook show the figure only once.

    A notebook would show it twice if a cell ends with it: as the value of the cell, and as an open figure.
    """
    import matplotlib
    from matplotlib import pyplot as plt
    from matplotlib.text import Text

    add_fallback_fonts(figure)
    for text in figure.findobj(lambda artist: isinstance(artist, Text) and "$" in artist.get_text()):
        cast(Text, text).set_parse_math(
            False
        )  # the labels of a log scale, which are formulas, are set when it is drawn

    def show() -> None:
        from IPython.display import display

        del figure._ipython_display_  # pyright: ignore[reportAttributeAccessIssue] -- set below
        display(figure)
        plt.close(figure)  # it is not shown again when the cell ends
        figure._ipython_display_ = show  # pyright: ignore[reportAttributeAccessIssue] -- see below

    if "inline" in matplotlib.get_backend():
        figure._ipython_display_ = show  # pyright: ignore[reportAttributeAccessIssue] -- IPython calls it to show an object
    return figure


def as_image(row: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any] | None":
    """Return a row as an image, shape (h, w) or (h, w, 3), or None if it is not an image.

    Images have shape (h, w), (1 or 3, h, w) or (h, w, 1 or 3), or are a square number of at least 64 values.
    """
    if row.ndim == 1:
        side = round(len(row) ** 0.5)
        return row.reshape(side, side) if side * side == len(row) and side >= 8 else None
    if row.ndim == 3 and row.shape[0] in (1, 3):
        row = row.transpose(1, 2, 0)
    if row.ndim == 3 and row.shape[2] == 1:
        row = row[:, :, 0]
    return row if row.ndim == 2 or (row.ndim == 3 and row.shape[2] == 3) else None
