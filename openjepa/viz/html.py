"""Self-contained HTML pages."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from openjepa.core.fileio import atomic_write
from openjepa.viz.canvas import INK, CaptionedFigure, to_png


def to_svg(figure: Figure) -> str:
    """A chart as SVG for a page: its ink is the page's, so that it is read in dark mode, too."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "openjepa"}):
        figure.savefig(
            stream, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = stream.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def data_url(kind: str, content: bytes) -> str:
    """A file as a data: address, so that a page holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def figures_page(plates: Sequence[CaptionedFigure], title: str, out: Path) -> Path:
    """Pictures under one another in a page that holds everything it shows."""
    return write_page(title, "\n".join(section(each.name, each.title, figure_html(each)) for each in plates), out)


def section(name: str, title: str, content: str) -> str:
    """A part of a page, which `#name` leads to."""
    return f'<section id="{name}"><h2>{html.escape(title)}</h2>\n{content}</section>'


def figure_html(plate: CaptionedFigure) -> str:
    """A picture with its words, in a box that can be moved sideways."""
    source = data_url("image/png", to_png(plate.figure))
    picture = plate.page or f'<img src="{source}" alt="{html.escape(plate.caption)}">'
    return f'<div class="wide">{picture}</div>\n<p>{html.escape(plate.caption)}</p>'


def write_page(title: str, body: str, out: Path) -> Path:
    """A page in the project's dress."""
    text = files("openjepa.viz").joinpath("page.html").read_text(encoding="utf-8")
    for mark, value in (("TITLE", html.escape(title)), ("BODY", body)):
        text = text.replace(f"@{mark}@", value)
    with atomic_write(out) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return out
