"""The parts of every figure: tiles in rows, color maps, captions."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image as Pillow

from openjepa.core.fileio import atomic_write

matplotlib.use("agg")

RGBImage = UInt8[np.ndarray, "_ _ 3"]  # of any size

# Okabe and Ito, 2008
COLORS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442", "#000000")

COLOR_MAP = "viridis"  # even in lightness, and told apart without red and green

DPI, TILE_SIDE, GAP = 110, 132, 8  # of pictures; pixels of a tile's longer side, and between tiles

LARGE_TILE = 200  # the same of pictures of more than 96 pixels

LINE_WIDTH = 150  # pixels of a row's label

INK = "#010203"  # of a chart in a page: it becomes the page's own

CHARACTER_WIDTH = 6.1  # pixels of a letter of the caption, about


class ColorScale(NamedTuple):
    """What the colours of a map mean."""

    label: str
    low: float
    high: float


class CaptionedFigure(NamedTuple):
    """A picture and its words."""

    name: str  # of its file
    title: str
    caption: str  # what is seen
    figure: Figure
    page: str = ""  # more of it, as HTML


def heatmap(values: Float[np.ndarray, "H W"], scale: ColorScale) -> RGBImage:
    """Numbers as colours."""
    span = max(scale.high - scale.low, 1e-12)
    share = np.nan_to_num((values - scale.low) / span).clip(0, 1)
    return (matplotlib.colormaps[COLOR_MAP](share)[..., :3] * 255).round().astype(np.uint8)


def fade(picture: RGBImage, kept: np.ndarray, patch: int) -> RGBImage:
    """A picture of which patches that are not kept are hatched: white and grey are colours of pictures, too."""
    mask = np.kron(kept, np.ones((patch, patch)))[..., None].astype(bool)
    row, column = np.indices(picture.shape[:2]) // max(1, len(picture) // 64)
    hatch = np.where((row + column) % 4 == 0, 190, 226)[..., None]
    return np.where(mask, picture, hatch + picture // 12).astype(np.uint8)


def outline(picture: RGBImage, inside: np.ndarray, patch: int, colour: str, width: int = 1) -> RGBImage:
    """A picture with a line of so many pixels around a set of patches, within them."""
    mask = np.kron(inside, np.ones((patch, patch))).astype(bool)
    inner = np.pad(mask, width)
    for axis in (0, 1):  # what is still inside when moved either way, in rows, then in columns
        inner = np.logical_and.reduce([np.roll(inner, way, axis) for way in range(-width, width + 1)])
    edge = mask & ~inner[width:-width, width:-width]
    return np.where(edge[..., None], np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], np.uint8), picture)


def enlarge(picture: RGBImage, side: int = TILE_SIDE) -> RGBImage:
    """A picture whose longer side is `side` pixels at least, every pixel a square."""
    factor = max(1, -(-side // max(picture.shape[:2])))
    return picture.repeat(factor, 0).repeat(factor, 1)


def tile_figure(
    rows: Sequence[Sequence[RGBImage | None]],
    columns: Sequence[str],
    labels: Sequence[str] = (),
    scale: ColorScale | None = None,
) -> Figure:
    """Pictures in rows under titles, with a line beside each row, and a bar of the colours."""
    height, width = tile_size(rows)
    left = LINE_WIDTH if any(labels) else GAP
    right = 96 if scale else GAP
    wide = left + len(columns) * (width + GAP) + right
    heads = [textwrap.fill(each, max(8, int(width / 6.4))) for each in columns]
    top = 12 + 15 * max(each.count("\n") + 1 for each in heads)
    high = top + len(rows) * (height + GAP)
    canvas = np.full((high, wide, 3), 255, np.uint8)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            if picture is not None:
                y, x = top + row * (height + GAP), left + column * (width + GAP)
                tile = np.asarray(fit_tile(picture, (width, height)))
                canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile

    figure = Figure(figsize=(wide / DPI, high / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, wide), ylim=(high, 0))
    axes.set_axis_off()
    axes.imshow(canvas, extent=(0, wide, high, 0), interpolation="nearest", aspect="auto")
    for column, head in enumerate(heads):
        place = left + column * (width + GAP) + width / 2
        axes.text(place, top - 6, head, ha="center", va="bottom", fontsize=8)
    for row, label in enumerate(labels):
        axes.text(8, top + row * (height + GAP) + height / 2, label, va="center", fontsize=7.5)
    if scale:
        color_bar(figure, scale, (wide - right + 10) / wide, GAP / high, 12 / wide, (high - top - GAP) / high)
    return figure


def tile_size(rows: Sequence[Sequence[RGBImage | None]]) -> tuple[int, int]:
    """Height and width of a tile: the first picture's shape, its longer side SIDE, or LARGE where it has more to show."""
    first = next(each for row in rows for each in row if each is not None)
    scale = (TILE_SIDE if max(first.shape[:2]) <= 96 else LARGE_TILE) / max(first.shape[:2])
    return round(first.shape[0] * scale), round(first.shape[1] * scale)


def fit_tile(picture: RGBImage, size: tuple[int, int]) -> Pillow.Image:
    """A picture in a tile; small ones show their pixels."""
    small = picture.shape[1] <= size[0] and picture.shape[0] <= size[1]
    return Pillow.fromarray(picture).resize(size, Pillow.Resampling.NEAREST if small else Pillow.Resampling.LANCZOS)


def color_bar(figure: Figure, scale: ColorScale, left: float, bottom: float, width: float, height: float) -> None:
    """The colours and what they mean."""
    mapped = ScalarMappable(Normalize(scale.low, scale.high), COLOR_MAP)
    drawn = figure.colorbar(mapped, cax=figure.add_axes((left, bottom, width, height)))
    tall = height * figure.get_figheight() * DPI
    drawn.set_label(textwrap.fill(scale.label, max(8, int(tall / CHARACTER_WIDTH))), fontsize=7.5)
    drawn.ax.tick_params(labelsize=7)


def save_figure(plate: CaptionedFigure, out: Path) -> Path:
    """The picture as PNG, its words below: the same bytes for the same numbers."""
    drawn = Pillow.open(io.BytesIO(to_png(plate.figure))).convert("RGB")
    lines = textwrap.wrap(plate.caption, max(30, int(drawn.width / CHARACTER_WIDTH)))
    strip = Figure(figsize=(drawn.width / DPI, (10 + 15 * len(lines)) / DPI), dpi=DPI)
    strip.text(8 / drawn.width, 1, "\n".join(lines), va="top", fontsize=7.5, color="#444444", linespacing=1.3)
    words = Pillow.open(io.BytesIO(to_png(strip))).convert("RGB")
    whole = Pillow.new("RGB", (drawn.width, drawn.height + words.height * bool(lines)), "white")
    whole.paste(drawn)
    if lines:
        whole.paste(words, (0, drawn.height))
    with atomic_write(out) as temporary:
        whole.save(temporary, format="PNG")
    return out


def plain_axes(axes: Axes, ink: str) -> None:
    """A chart's grid, edges and numbers, all in one ink."""
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8, colors=ink, which="both")
    for edge in axes.spines.values():
        edge.set_color(ink)
        edge.set_alpha(0.4)
    axes.patch.set_alpha(0 if ink == INK else 1)


def to_png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()
