"""Names in other scripts are drawn where the machine has a font for them, and warned of once where it has none."""

import io
import subprocess
import sys
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.text import Text

from onecycle.core.record import Record
from onecycle.show import fonts
from onecycle.show.interpret import ClassificationInterpretation, plot_predictions
from onecycle.show.plots import plot_confusion_matrix, plot_losses, plot_metrics
from onecycle.show.svg import inline_svg

CHINESE = ("猫", "飞机")


@pytest.fixture(autouse=True)
def looked_up_anew() -> Generator[None]:
    cached = fonts._installed, fonts._warn_once
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


def top_losses() -> Any:
    probs = np.array([[0.9, 0.1], [0.2, 0.8]])
    return ClassificationInterpretation(probs, np.array([0, 0]), [*CHINESE], np.ones((2, 64))).plot_top_losses()


PLOTS: dict[str, Callable[[], Any]] = {
    "confusion": partial(plot_confusion_matrix, np.eye(2, dtype=int), [*CHINESE]),
    "top losses": top_losses,
    "predictions": partial(plot_predictions, {"targets": ["房价"], "actual": [[1.0, 2.0]], "predicted": [[1.0, 2.1]]}),
    "metrics": partial(
        plot_metrics, Record(nb_batches=[2], epochs=[0], metrics=[[0.5]], metric_names=["准确率"], losses=[1.0, 1.0])
    ),
}


@pytest.mark.skipif(not fonts._installed(), reason="no font for Chinese on this machine")
@pytest.mark.parametrize("name", PLOTS)
def test_chinese_is_drawn(name: str):
    figure = PLOTS[name]()
    figure.savefig(io.BytesIO())  # matplotlib's warning of a missing glyph would be an error
    drawn = [text for text in figure.findobj(Text) if not text.get_text().replace("−", "").isascii()]
    assert drawn
    assert {tuple(text.get_fontfamily()) for text in drawn} == {("sans-serif", fonts._installed()[0])}
    inline_svg(PLOTS[name], "plot", (4, 3))


def draw_twice(plot: Callable[[], Any]) -> None:
    for _ in range(2):
        plot().savefig(io.BytesIO())


@pytest.mark.parametrize("name", PLOTS)
def test_without_a_font_there_is_one_warning_and_none_of_matplotlibs(name: str, monkeypatch: pytest.MonkeyPatch):
    own = [font for font in font_manager.fontManager.ttflist if font.name.startswith("DejaVu")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    with pytest.warns(UserWarning, match="names in plots are drawn as boxes.* install .* fonts-noto-cjk") as caught:
        draw_twice(PLOTS[name])
    assert len(caught) == 1


def test_a_font_that_was_installed_after_matplotlib_made_its_list(monkeypatch: pytest.MonkeyPatch):
    manager, dejavu = font_manager.fontManager, font_manager.findfont("DejaVu Sans")
    monkeypatch.setattr(manager, "ttflist", [])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(dejavu), __file__])  # this file is no font
    monkeypatch.setattr(fonts, "_FAMILIES", ("SimHei", "DejaVu Sans"))
    assert fonts._installed() == ["DejaVu Sans"]


def test_names_that_matplotlibs_own_font_has_cost_no_search(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(fonts, "_installed")
    figure = plot_confusion_matrix(np.eye(2, dtype=int), ["größe", "кошка"])
    assert all(text.get_fontfamily() == ["sans-serif"] for text in figure.findobj(Text))
    monkeypatch.delattr(fonts, "_missing_from")
    plot_losses(Record(losses=[1.0]))


def test_a_font_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(fonts, "_installed")
    monkeypatch.setattr(fonts, "_missing_from", lambda family, chars: set() if family == "chosen" else chars)
    with matplotlib.rc_context({"font.family": ["sans-serif", "chosen"]}):
        figure = plot_confusion_matrix(np.eye(1, dtype=int), ["猫"])
    assert {tuple(text.get_fontfamily()) for text in figure.findobj(Text)} == {("sans-serif", "chosen")}


def test_no_plot_imports_the_fonts_before_it_is_drawn():
    script = "import sys, onecycle.show.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
