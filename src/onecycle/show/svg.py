"""Plots as SVG inside a page: no script, no link, ids of their own, and the page's colours and font."""

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# drawn in these colours, which nothing else uses, and then given over to the page's, so that dark mode is its matter
_INK, _GRID = "#0a0b0c", "#d0d1d2"
_LINES = ("#1a2b3c", "#c3b2a1", "#2c3b1a", "#a1c3b2")
_PAGE = {
    _INK: "var(--ink)",
    _GRID: "var(--grid)",
    "#d62728": "var(--line2)",  # matplotlib's tab:red
    **{color: f"var(--line{i})" for i, color in enumerate(_LINES, start=1)},
}


def inline_svg(draw: Callable[[], "Figure"], name: str, size: tuple[float, float]) -> Markup:
    """The figure that `draw` makes as an `<svg>` element of `size` inches; `name` keeps its ids apart from others'."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    with mpl.rc_context(_style()), plt.ioff():
        figure = draw()
        figure.set_size_inches(*size)
        figure.set_layout_engine("constrained")
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True)
        plt.close(figure)
    return Markup(_adapt(text.getvalue(), name))  # safe: matplotlib has escaped the text in it


def _style() -> dict[Any, Any]:
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
        "svg.hashsalt": "onecycle",  # the same record gives the same page
        "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
        "text.parse_math": False,  # a metric may be called "cost in $"
    }


def _adapt(svg: str, name: str) -> str:
    svg = svg[svg.index("<svg") :]  # without XML declaration and DOCTYPE
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
