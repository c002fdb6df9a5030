"""Fallback fonts for characters that matplotlib's own font lacks, such as Chinese names of columns and classes."""

import warnings
from functools import cache
from typing import TYPE_CHECKING

from onecycle.errors import warn_user

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# in order of preference; in a font collection matplotlib before 3.11 sees only the first face, JP or HK
_FAMILIES = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Serif CJK SC", "Noto Serif CJK JP"),
    *("Source Han Sans SC", "Source Han Sans CN", "Source Han Sans", "PingFang SC", "PingFang HK", "Hiragino Sans GB"),
    *("Microsoft YaHei", "SimHei", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Arial Unicode MS"),
    *("Malgun Gothic", "Apple SD Gothic Neo"),  # Korean, which some of the above lack
)


def add_fallback_fonts(figure: "Figure") -> None:
    """Add installed fonts to each text of the figure that has characters its font lacks.

    If no installed font has them, warn once, and suppress matplotlib's warning for each character. ASCII text costs no
    look-up.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        missing = {char for char in text.get_text() if not char.isascii()}
        families = list(text.get_fontfamily())
        for family in families:
            missing = missing and _missing_from(family, missing)
        if not missing:
            continue
        for family in _installed():
            remaining = _missing_from(family, missing)
            families += [family] if remaining != missing else []
            missing = remaining
        text.set_fontfamily(families)
        if missing:
            _warn_once()
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)


def _missing_from(family: str, chars: set[str]) -> set[str]:
    """Return the characters that a font family lacks."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    if not chars:
        return set()
    try:
        font = get_font(findfont(FontProperties(family=[family]), fallback_to_default=False))
    except ValueError:  # it is not installed
        return chars
    return {char for char in chars if not font.get_char_index(ord(char))}


@cache
def _installed() -> list[str]:
    """Return the families of `_FAMILIES` that are installed."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    if not set(_FAMILIES) & {font.name for font in fontManager.ttflist}:
        for path in {*findSystemFonts()} - {font.fname for font in fontManager.ttflist}:
            try:
                fontManager.addfont(path)  # installed after matplotlib cached its list of fonts
            except (OSError, RuntimeError):
                continue  # a format that matplotlib does not read
    names = {font.name for font in fontManager.ttflist}
    return [family for family in _FAMILIES if family in names]


@cache
def _warn_once() -> None:
    warn_user(
        "names in plots are drawn as boxes, because no installed font has their characters; for Chinese, Japanese "
        "and Korean install Noto Sans CJK (the package fonts-noto-cjk of Debian and Ubuntu, "
        "google-noto-sans-cjk-fonts of Fedora) and start again",
    )
