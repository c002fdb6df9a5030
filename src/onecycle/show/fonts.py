"""Fonts for what matplotlib's own font lacks, such as Chinese names of columns and classes."""

import warnings
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# in the order in which they are tried; of a collection matplotlib before 3.11 sees only the first face, JP or HK
_FAMILIES = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Serif CJK SC", "Noto Serif CJK JP"),
    *("Source Han Sans SC", "Source Han Sans CN", "Source Han Sans", "PingFang SC", "PingFang HK", "Hiragino Sans GB"),
    *("Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Arial Unicode MS"),
    *("Malgun Gothic", "Apple SD Gothic Neo"),  # Korean, which some of those above lack
)


def add_fallback_fonts(figure: "Figure") -> None:
    """Give text in `figure` that its font cannot draw other fonts of this machine to fall back on.

    Where none has the characters, it warns once, and keeps matplotlib from warning of each character. Nothing is looked
    up for text in ASCII.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_text().isascii():
            continue
        families = list(text.get_fontfamily())
        lacking = {char for char in text.get_text() if not char.isascii()}
        for family in families:
            lacking = _without(lacking, family)
        if not lacking:
            continue
        for family in _installed():
            left = _without(lacking, family)
            families += [family] if left != lacking else []
            lacking = left
        text.set_fontfamily(families)
        if lacking:
            _warn_once()
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)


def _without(chars: Iterable[str], family: str) -> set[str]:
    """Those of `chars` that the font `family` cannot draw."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    if not chars:
        return set()
    try:
        font = get_font(findfont(FontProperties(family=[family]), fallback_to_default=False))
    except ValueError:  # it is not installed
        return set(chars)
    return {char for char in chars if not font.get_char_index(ord(char))}


@cache
def _installed() -> list[str]:
    """Those of the families that this machine has."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    if not set(_FAMILIES) & {font.name for font in fontManager.ttflist}:
        for path in {*findSystemFonts()} - {font.fname for font in fontManager.ttflist}:
            try:
                fontManager.addfont(path)  # installed after matplotlib made its list, which it keeps for good
            except (OSError, RuntimeError):
                continue  # a kind of font that matplotlib does not read
    names = {font.name for font in fontManager.ttflist}
    return [family for family in _FAMILIES if family in names]


@cache
def _warn_once() -> None:
    warnings.warn(
        "names in plots are drawn as boxes, for no font that was found has their characters; for Chinese, Japanese "
        "and Korean install Noto Sans CJK (the package fonts-noto-cjk of Debian and Ubuntu, "
        "google-noto-sans-cjk-fonts of Fedora) and start again",
        stacklevel=3,
    )
