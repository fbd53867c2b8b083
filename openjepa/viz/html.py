"""Write self-contained HTML pages."""

from __future__ import annotations

import base64
import html
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from PIL import Image as Pillow

from openjepa.core.fileio import write_text
from openjepa.core.names import printable
from openjepa.viz.animation import Frames, to_webp
from openjepa.viz.canvas import INK, CaptionedFigure, RGBImage, to_png
from openjepa.viz.text import stop_formulas


def escape(text: object) -> str:
    """Return a text for a page: it is shown as it is, in elements and in attributes."""
    return html.escape(printable(text, keep_lines=True))


def to_svg(figure: Figure) -> str:
    """Render a chart as SVG in the text color of the page, so that it is readable in dark mode."""
    stop_formulas(figure)
    stream = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # no dates: the same chart gives the same bytes
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "openjepa"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has them
        figure.savefig(stream, format="svg", transparent=True, metadata=metadata)
    text = stream.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor")


def encode_data_url(kind: str, content: bytes) -> str:
    """Return a file as a data: URL, so that the page contains it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def png_data_url(picture: RGBImage) -> str:
    """Encode a picture as a PNG data: URL."""
    stream = io.BytesIO()
    Pillow.fromarray(picture).save(stream, "PNG")
    return encode_data_url("image/png", stream.getvalue())


def moving_data_url(frames: Frames) -> str:
    """Encode frames as an animated data: URL, so that the page plays them."""
    return encode_data_url("image/webp", to_webp(frames))


def write_figures_page(figures: Sequence[CaptionedFigure], title: str, out: Path) -> Path:
    """Write a page with the figures, one below the other, and return its path."""
    sections = [format_section(each.name, each.title, format_figure(each)) for each in figures]
    return write_page(title, "\n".join(sections), out)


def format_section(name: str, title: str, content: str) -> str:
    """Return a section of a page that the link `#name` leads to."""
    return f'<section id="{escape(name)}"><h2>{escape(title)}</h2>\n{content}</section>'


def format_figure(captioned: CaptionedFigure) -> str:
    """Return a figure with its caption, in a box that scrolls sideways."""
    source = encode_data_url("image/png", to_png(captioned.figure))
    content = captioned.page or f'<img src="{source}" alt="{escape(captioned.words)}">'
    if captioned.frames is not None:
        moving = f'<img src="{moving_data_url(captioned.frames)}" alt="{escape(captioned.title)}, in motion">'
        content = f'{content}</div>\n<div class="wide">{moving}'
    return f'<div class="wide">{content}</div>\n<p>{escape(captioned.words)}</p>'


def write_page(title: str, body: str, out: Path) -> Path:
    """Write a page with the style of all pages and return its path."""
    return fill_template("page.html", {"TITLE": escape(title), "BODY": body}, out)


def fill_template(name: str, values: Mapping[str, str], out: Path) -> Path:
    """Write the template `name` with its values filled in and return the path."""
    text = fill_in(files("openjepa.viz").joinpath(name).read_text(encoding="utf-8"), values)
    return write_text(out, text)


def fill_in(text: str, values: Mapping[str, object]) -> str:
    """Replace each @KEY@ in a text by its value; values that hold a @KEY@ themselves stay as they are."""
    keys = "|".join(map(re.escape, values))
    return re.sub(f"@({keys})@", lambda match: str(values[match[1]]), text)
