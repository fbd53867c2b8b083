"""Write self-contained HTML pages."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from openjepa.core.fileio import atomic_write
from openjepa.viz.canvas import INK, CaptionedFigure, to_png


def to_svg(figure: Figure) -> str:
    """Render a chart as SVG in the text color of the page, so that it is readable in dark mode."""
    stream = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # no dates: the same chart gives the same bytes
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "openjepa"}):
        figure.savefig(stream, format="svg", transparent=True, metadata=metadata)
    text = stream.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def encode_data_url(kind: str, content: bytes) -> str:
    """Return a file as a data: URL, so that the page contains it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def write_figures_page(figures: Sequence[CaptionedFigure], title: str, out: Path) -> Path:
    """Write a page with the figures, one below the other, and return its path."""
    sections = [format_section(each.name, each.title, format_figure(each)) for each in figures]
    return write_page(title, "\n".join(sections), out)


def format_section(name: str, title: str, content: str) -> str:
    """Return a section of a page that the link `#name` leads to."""
    return f'<section id="{name}"><h2>{html.escape(title)}</h2>\n{content}</section>'


def format_figure(captioned: CaptionedFigure) -> str:
    """Return a figure with its caption, in a box that scrolls sideways."""
    source = encode_data_url("image/png", to_png(captioned.figure))
    content = captioned.page or f'<img src="{source}" alt="{html.escape(captioned.caption)}">'
    return f'<div class="wide">{content}</div>\n<p>{html.escape(captioned.caption)}</p>'


def write_page(title: str, body: str, out: Path) -> Path:
    """Write a page with the style of all pages and return its path."""
    return fill_template("page.html", {"TITLE": html.escape(title), "BODY": body}, out)


def fill_template(name: str, values: Mapping[str, str], out: Path) -> Path:
    """Write the template `name` with its values filled in and return the path."""
    text = fill_in(files("openjepa.viz").joinpath(name).read_text(encoding="utf-8"), values)
    with atomic_write(out) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return out


def fill_in(text: str, values: Mapping[str, object]) -> str:
    """Replace each @KEY@ in a text by its value, in the order of the values."""
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    return text
