"""Make thumbnails for pages and contact sheets."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image as Pillow

from openjepa.core.capabilities import Plays, Reads, Renders, Sounds, Thumbnails, require
from openjepa.core.console import info, warn
from openjepa.core.errors import UserError
from openjepa.core.names import printable, shorten
from openjepa.core.protocols import Modality
from openjepa.interop.inputs import source_exists
from openjepa.viz.canvas import RGBImage, write_png
from openjepa.viz.html import encode_data_url, escape, moving_data_url
from openjepa.viz.text import adapt_texts

SIDE = 128  # pixels of the longer side

GRAY = (128, 128, 128)

MAX_MOVING_BYTES = 6 * 2**20  # of the clips and sounds that play on a page; about 10,000 for a clip, 40,000 a second

MAX_LABEL = 60  # characters of a path in a table or title


def can_draw(modality: Modality, command: str) -> bool:
    """Return whether thumbnails can be drawn of files; if not, print the missing capability in one line."""
    try:
        require(require(modality, Renders, command), Reads, command)
    except UserError as error:
        info(f"no picture  {error}")
        return False
    return True


def thumbnail(modality: Modality, source: str, side: int = SIDE) -> Pillow.Image:
    """Draw a sample at thumbnail size in RGB; return a gray tile if its file is missing or cannot be decoded."""
    if not source_exists(source):
        return Pillow.new("RGB", (side, side), GRAY)
    try:
        if isinstance(modality, Thumbnails):
            return Pillow.fromarray(modality.thumbnail(source, side))
        view = require(modality, Reads, "a page").read(source)
        return fit_square(still_picture(modality, view), side)
    except (UserError, OSError):
        return Pillow.new("RGB", (side, side), GRAY)


def still_picture(modality: Any, view: Any) -> RGBImage:
    """Draw a view as one picture that fits a tile: of a clip, the frame in its middle."""
    if isinstance(modality, Plays):
        frames = modality.play(view)
        return frames[len(frames) // 2]
    return require(modality, Renders, "a figure").picture(view)


class PageThumbnails:
    """Draw samples as data: URLs of one page: clips and sounds play until they fill MAX_MOVING_BYTES."""

    def __init__(self, modality: Modality):
        self.modality, self.room = modality, MAX_MOVING_BYTES

    def __call__(self, source: str, side: int = SIDE) -> str:
        """Return the data: URL of a sample; a gray tile if its file is missing or cannot be decoded."""
        if isinstance(self.modality, Plays) and self.room > 0 and source_exists(source):
            try:
                url = moving_data_url(self.modality.moving_thumbnail(source, side))
            except (UserError, OSError):
                return jpeg_data_url(Pillow.new("RGB", (side, side), GRAY))
            self.room -= len(url)
            return url
        return jpeg_data_url(thumbnail(self.modality, source, side))

    def sound(self, source: str) -> str:
        """Return the data: URL of a sample's sound; empty if it has none, cannot be decoded, or the page is full."""
        if not isinstance(self.modality, Sounds) or self.room <= 0 or not source_exists(source):
            return ""
        try:
            url = encode_data_url("audio/wav", self.modality.sound(source))
        except (UserError, OSError):
            return ""
        self.room -= len(url)
        return url


def format_tile(file: str, draw: PageThumbnails) -> str:
    """Return a sample's picture, with a player below it if it has a sound."""
    name, sound = escape(file), draw.sound(file)
    image = f'<img src="{draw(file, 96)}" alt="{name}" title="{name}">'
    return f'<figure>{image}<audio controls src="{sound}" title="{name}"></audio></figure>' if sound else image


def fit_square(picture: np.ndarray, side: int) -> Pillow.Image:
    """Scale a picture so that its longer side has `side` pixels."""
    scale = side / max(picture.shape[:2])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return Pillow.fromarray(picture).resize(size, Pillow.Resampling.BILINEAR)


def warn_of_missing(sources: Iterable[str], plural: str) -> None:
    """Warn if files no longer exist."""
    every = list(sources)
    if missing := [source for source in every if not source_exists(source)]:
        warn(f"{len(missing)} of {len(every)} {plural} are missing, e.g. {missing[0]}: shown as gray tiles")


def jpeg_data_url(picture: Pillow.Image) -> str:
    """Encode an image as a JPEG data: URL, so that a page contains it."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80)
    return encode_data_url("image/jpeg", stream.getvalue())


def contact_sheet(
    query: Pillow.Image, hits: list[tuple[Pillow.Image, str]], title: str, out: Path, columns: int = 7
) -> Path:
    """Write a contact sheet as PNG: the query, then the hits, each with a line of text above; return its path."""
    cells = [(query, "query"), *hits]
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.75 * rows + 0.4), layout="constrained")
    for number, (picture, line) in enumerate(cells):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.imshow(picture)
        axes.set_title(line, fontsize=8, fontweight="bold" if number == 0 else "normal")
        axes.set_axis_off()
    figure.suptitle(title, fontsize=9)
    legend = adapt_texts(figure)
    if legend:
        info(f"names      {legend}")
    return write_png(figure, out)


def short_label(path: str) -> str:
    """Return the folder and the name of a file, shortened in the middle if they are long."""
    return shorten("/".join(Path(path).parts[-2:]), MAX_LABEL)


def shorten_path(path: str) -> str:
    """Return the path, cut at its start to MAX_LABEL characters."""
    text = printable(path)
    return text if len(text) <= MAX_LABEL else "…" + text[-MAX_LABEL:]
