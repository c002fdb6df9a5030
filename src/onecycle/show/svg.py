"""Figures as SVG elements of an HTML page, with ids of their own, and the colours and the font of the page."""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# figures are drawn in these colours, which are then replaced by the page's variables: those change in dark mode
_INK, _GRID = "#0a0b0c", "#d0d1d2"
_LINES = ("#1a2b3c", "#c3b2a1", "#2c3b1a", "#a1c3b2")
_PAGE = {
    _INK: "var(--ink)",
    _GRID: "var(--grid)",
    "#d62728": "var(--line2)",  # matplotlib's tab:red
    **{color: f"var(--line{i})" for i, color in enumerate(_LINES, start=1)},
}


def inline_svg(draw: Callable[[], "Figure"], name: str, size: tuple[float, float]) -> Markup:
    """Return the figure that `draw` returns as an `<svg>` element of `size` inches; `name` prefixes its ids."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    with mpl.rc_context(_style()), plt.ioff():
        figure = draw()
        figure.set_size_inches(*size)
        figure.set_layout_engine("constrained")
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True)
        plt.close(figure)
    return Markup(_adapt(text.getvalue(), name))  # safe: matplotlib escapes the text in it


def _style() -> dict[Any, Any]:
    """Return matplotlib settings for a figure on a page."""
    from cycler import cycler

    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK)
    return {
        **ink,
        "axes.prop_cycle": cycler(color=_LINES),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.labelsize": 9,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "grid.color": _GRID,
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "svg.hashsalt": "onecycle",  # ids are the same for the same record
        "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
        "text.parse_math": False,  # a metric may be called "cost in $"
    }


def _adapt(svg: str, name: str) -> str:
    """Return the `<svg>` element of matplotlib's file, without what a page does not need or has itself."""
    svg = svg[svg.index("<svg") :]  # drops XML declaration and DOCTYPE
    svg = re.sub(r"<metadata>.*?</metadata>|<style type=\"text/css\">.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    head = re.sub(r' (?:xmlns(?::xlink)?|version|width|height)="[^"]*"', "", head)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = body.replace('xlink:href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    body = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", body)  # as matplotlib before 3.11 wrote it
    body = re.sub(r" font-family: [^;\"]*;", "", body)
    for color, variable in _PAGE.items():
        body = body.replace(color, variable)
    return f'{head} role="img" aria-label="{name}">{body}'
