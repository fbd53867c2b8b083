"""Draw names in figures as they are: no mathematics, fonts that have their characters, else labels with a legend."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis, Tick
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter

from openjepa.core.names import printable

MAX_NAME = 32  # characters of a name along an axis or in a legend

BASE_FONT = "DejaVu Sans"  # comes with matplotlib

PLACEHOLDERS = "Last Resort"  # name of fonts that draw a box for every character

RIGHT_TO_LEFT = ("R", "AL")  # matplotlib neither joins nor turns round the letters of such scripts


def adapt_texts(figure: Figure, word: str = "name") -> str:
    """Make all texts of a figure drawable, and return a legend of the words that became numbers; "" without any.

    No `$` starts a formula. Words with characters that no installed font has become `name 1`, `name 2` …; the same
    word has the same number throughout the figure.
    """
    labels: dict[str, str] = {}
    for axis in axes_of(figure):
        if has_names(axis):
            names = axis.get_ticklabels()
            for text in names:
                adapt_text(text, labels, word)
            axis.set_ticks(axis.get_ticklocs(), [text.get_text() for text in names])  # drawing would restore the old
    for text in texts_of(figure):
        adapt_text(text, labels, word)
    return "; ".join(f"{number} = {name}" for name, number in labels.items())


def stop_formulas(figure: Figure) -> None:
    """Draw each `$` as it is; enough for a page, as the fonts of its reader draw the names."""
    for text in texts_of(figure):
        text.set_parse_math(False)


def texts_of(figure: Figure) -> list[Text]:
    """Return all texts of a figure but the numbers along its axes, whose powers of ten are formulas."""
    ticks = [tick for axis in axes_of(figure) if not has_names(axis) for tick in ticks_of(axis)]
    values = {text for tick in ticks for text in (tick.label1, tick.label2)}
    values |= {axis.get_offset_text() for axis in axes_of(figure)}
    return [text for text in figure.findobj(Text) if isinstance(text, Text) and text not in values]


def axes_of(figure: Figure) -> list[Axis]:
    """Return the axes of coordinates of a figure."""
    return [axis for each in figure.axes for axis in (each.xaxis, each.yaxis)]  # type: ignore[attr-defined]


def ticks_of(axis: Axis) -> list[Tick]:
    """Return the ticks of an axis."""
    return [*axis.get_major_ticks(), *axis.get_minor_ticks()]


def has_names(axis: Axis) -> bool:
    """Tell whether labels were given for an axis."""
    return isinstance(axis.get_major_formatter(), FixedFormatter | FuncFormatter)


def adapt_text(text: Text, labels: dict[str, str], word: str) -> None:
    """Make one text drawable: no mathematics, numbers for words that no font has, fonts for all others."""
    text.set_parse_math(False)
    content = printable(text.get_text(), keep_lines=True).expandtabs(1)
    if not content.isascii():
        content = number_words(content, labels, word)
    text.set_text(content)
    if fonts := fonts_for(content):
        text.set_fontfamily([BASE_FONT, *fonts])


def number_words(text: str, labels: dict[str, str], word: str) -> str:
    """Replace neighboring words that cannot be drawn by a number, and note it."""

    def number(match: re.Match[str]) -> str:
        return labels.setdefault(match[0], f"{word} {len(labels) + 1}")

    lacking = "".join(re.escape(each) for each in sorted(set(text)) if not is_drawable(each))
    lacks = rf"[^\s]*[{lacking}][^\s]*"
    return re.sub(rf"{lacks}( +{lacks})*", number, text) if lacking else text


def is_drawable(character: str) -> bool:
    """Tell whether a font has a character and matplotlib draws it as it is read."""
    if character.isspace():
        return True
    return unicodedata.bidirectional(character) not in RIGHT_TO_LEFT and font_with(character) is not None


def fonts_for(text: str) -> list[str]:
    """Return the names of the fonts, other than the base font, that a text needs."""
    fonts = dict.fromkeys(font_with(each) for each in text if not each.isspace())
    return [name for name in fonts if name and name != BASE_FONT]


@functools.cache
def font_with(character: str) -> str | None:
    """Return the name of the first installed font that has a character, the base font first."""
    return next((name for name, _ in installed_fonts() if ord(character) in characters_of(name)), None)


@functools.cache
def installed_fonts() -> tuple[tuple[str, str], ...]:
    """Return name and file of the installed fonts, the base font first."""
    every = font_manager.fontManager.ttflist
    others = {each.name: each.fname for each in every if each.style == "normal" and PLACEHOLDERS not in each.name}
    base = font_manager.findfont(BASE_FONT)
    return (BASE_FONT, base), *((name, file) for name, file in sorted(others.items()) if name != BASE_FONT)


@functools.cache
def characters_of(name: str) -> frozenset[int]:
    """Return the characters of an installed font; none of a file that cannot be read as a font."""
    try:
        return frozenset(font_manager.get_font(dict(installed_fonts())[name]).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


def add_legend(axes: Axes, names: Sequence[str], handles: Iterable[Any], **style: Any) -> None:
    """Add a legend; names that begin with an underscore, which matplotlib would leave out, are in it, too."""
    handles = list(handles)
    legend = axes.legend(handles, [str(number) for number in range(len(handles))], **style)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)
