"""Build the parts that every figure shares: tiles in rows, color maps, captions.   H height  W width"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from openjepa.core.names import printable
from openjepa.viz.text import adapt_texts

matplotlib.use("agg")

RGBImage = UInt8[np.ndarray, "_ _ 3"]  # any height and width

# Okabe and Ito, 2008: safe for color-blind readers
COLORS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#F0E442", "#000000")

COLOR_MAP = "viridis"  # even steps of lightness; readable without telling red from green

DPI = 110

TILE_SIDE = 132  # pixels of a tile's longer side

LARGE_TILE = 200  # the same for images with a side above SMALL_IMAGE

SMALL_IMAGE = 96  # pixels

GAP = 8  # pixels between tiles

LABEL_WIDTH = 150  # pixels left of the tiles for row labels

INK = "#010203"  # stands for the text color of the page in SVG charts

CHARACTER_WIDTH = 6.1  # mean pixels per character of a caption


class ColorScale(NamedTuple):
    """The meaning of the colors of a heat map: label and value range."""

    label: str
    low: float
    high: float


@dataclass(frozen=True)
class CaptionedFigure:
    """A figure with its title and caption, and perhaps in motion; all its texts are drawable.   F frames"""

    name: str  # file stem and id of its page section
    title: str
    caption: str
    figure: Figure
    page: str = ""  # HTML that a page shows in place of the PNG
    frames: UInt8[np.ndarray, "F H W 3"] | None = None  # the figure in motion: a GIF beside the PNG, and in pages
    legend: str = field(init=False)  # of names that no font has, for texts beside the figure

    def __post_init__(self) -> None:
        object.__setattr__(self, "legend", adapt_texts(self.figure))

    @property
    def words(self) -> str:
        """Return the caption with the legend of names that could not be drawn."""
        return f"{self.caption} Names: {self.legend}." if self.legend else self.caption


def colorize(values: Float[np.ndarray, "H W"], scale: ColorScale) -> RGBImage:
    """Map values to colors; values outside the scale are clipped, NaN counts as 0."""
    span = max(scale.high - scale.low, 1e-12)
    share = np.nan_to_num((values - scale.low) / span).clip(0, 1)
    return (matplotlib.colormaps[COLOR_MAP](share)[..., :3] * 255).round().astype(np.uint8)


def fade(picture: RGBImage, visible: np.ndarray, patch: int) -> RGBImage:
    """Hatch all patches that are not visible; a hatch cannot be mistaken for a white or gray image."""
    mask = np.kron(visible, np.ones((patch, patch)))[..., None].astype(bool)
    row, column = np.indices(picture.shape[:2]) // max(1, len(picture) // 64)
    hatch = np.where((row + column) % 4 == 0, 190, 226)[..., None]
    return np.where(mask, picture, hatch + picture // 12).astype(np.uint8)


def outline(picture: RGBImage, inside: np.ndarray, patch: int, color: str, width: int = 1) -> RGBImage:
    """Draw a line of `width` pixels around a set of patches, inside their area."""
    mask = np.kron(inside, np.ones((patch, patch))).astype(bool)
    inner = np.pad(mask, width)
    for axis in (0, 1):  # erode the area by `width` pixels
        inner = np.logical_and.reduce([np.roll(inner, shift, axis) for shift in range(-width, width + 1)])
    edge = mask & ~inner[width:-width, width:-width]
    rgb = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)], np.uint8)
    return np.where(edge[..., None], rgb, picture)


def enlarge(picture: RGBImage, side: int = TILE_SIDE) -> RGBImage:
    """Repeat pixels by a whole factor until the longer side has at least `side` pixels."""
    factor = max(1, -(-side // max(picture.shape[:2])))
    return picture.repeat(factor, 0).repeat(factor, 1)


def draw_tiles(
    rows: Sequence[Sequence[RGBImage | None]],
    columns: Sequence[str],
    labels: Sequence[str] = (),
    scale: ColorScale | None = None,
    tile: tuple[int, int] | None = None,
) -> Figure:
    """Draw images in rows under column titles, with a label left of each row and an optional color bar.

    `tile` is the height and width of a tile; by default it fits the first image.
    """
    height, width = tile or tile_size(rows)
    heads = wrap_heads(columns, width)
    top, left = tiles_corner(heads, labels)
    right = 96 if scale else GAP
    wide = left + len(columns) * (width + GAP) + right
    high = top + len(rows) * (height + GAP)
    canvas = paste_tiles(rows, (height, width), (top, left), np.full((high, wide, 3), 255, np.uint8))

    figure = Figure(figsize=(wide / DPI, high / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, wide), ylim=(high, 0))
    axes.set_axis_off()
    axes.imshow(canvas, extent=(0, wide, high, 0), interpolation="nearest", aspect="auto")
    for column, head in enumerate(heads):
        middle = left + column * (width + GAP) + width / 2
        axes.text(middle, top - 6, head, ha="center", va="bottom", fontsize=8)
    for row, label in enumerate(labels):
        axes.text(8, top + row * (height + GAP) + height / 2, label, va="center", fontsize=7.5)
    if scale:
        add_color_bar(figure, scale, (wide - right + 10) / wide, GAP / high, 12 / wide, (high - top - GAP) / high)
    return figure


def wrap_heads(columns: Sequence[str], width: int) -> list[str]:
    """Break column titles into lines that fit a tile of this width."""
    return [textwrap.fill(each, max(8, int(width / 6.4))) for each in columns]


def tiles_corner(heads: Sequence[str], labels: Sequence[str]) -> tuple[int, int]:
    """Return the top left pixel of the first tile, below the column titles and right of the row labels."""
    return 12 + 15 * max(each.count("\n") + 1 for each in heads), LABEL_WIDTH if any(labels) else GAP


def paste_tiles(
    rows: Sequence[Sequence[RGBImage | None]], tile: tuple[int, int], corner: tuple[int, int], canvas: RGBImage
) -> RGBImage:
    """Paste the tiles onto a copy of the canvas; `corner` is the top left pixel of the first tile."""
    canvas = canvas.copy()
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            if picture is not None:
                y, x = corner[0] + row * (tile[0] + GAP), corner[1] + column * (tile[1] + GAP)
                pixels = np.asarray(fit_tile(picture, (tile[1], tile[0])))
                canvas[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    return canvas


def tile_size(rows: Sequence[Sequence[RGBImage | None]]) -> tuple[int, int]:
    """Return height and width of a tile: the first image scaled to TILE_SIDE, or to LARGE_TILE if it is large."""
    first = next(each for row in rows for each in row if each is not None)
    scale = (TILE_SIDE if max(first.shape[:2]) <= SMALL_IMAGE else LARGE_TILE) / max(first.shape[:2])
    return round(first.shape[0] * scale), round(first.shape[1] * scale)


def fit_tile(picture: RGBImage, size: tuple[int, int]) -> Pillow.Image:
    """Resize an image to (width, height); small ones are enlarged without smoothing."""
    small = picture.shape[1] <= size[0] and picture.shape[0] <= size[1]
    return Pillow.fromarray(picture).resize(size, Pillow.Resampling.NEAREST if small else Pillow.Resampling.LANCZOS)


def add_color_bar(figure: Figure, scale: ColorScale, left: float, bottom: float, width: float, height: float) -> None:
    """Add a color bar with the scale's label; position and size are fractions of the figure."""
    mapped = ScalarMappable(Normalize(scale.low, scale.high), COLOR_MAP)
    bar = figure.colorbar(mapped, cax=figure.add_axes((left, bottom, width, height)))
    pixels = height * figure.get_figheight() * DPI
    bar.set_label(textwrap.fill(scale.label, max(8, int(pixels / CHARACTER_WIDTH))), fontsize=7.5)
    bar.ax.tick_params(labelsize=7)


def save_figure(captioned: CaptionedFigure, out: Path) -> Path:
    """Write the figure with its caption below as PNG; the same values give the same bytes."""
    picture = Pillow.open(io.BytesIO(to_png(captioned.figure))).convert("RGB")
    lines = textwrap.wrap(printable(captioned.caption), max(30, int(picture.width / CHARACTER_WIDTH)))
    strip = Figure(figsize=(picture.width / DPI, (10 + 15 * len(lines)) / DPI), dpi=DPI)
    strip.text(8 / picture.width, 1, "\n".join(lines), va="top", fontsize=7.5, color="#444444", linespacing=1.3)
    caption = Pillow.open(io.BytesIO(to_png(strip))).convert("RGB")
    whole = Pillow.new("RGB", (picture.width, picture.height + caption.height * bool(lines)), "white")
    whole.paste(picture)
    if lines:
        whole.paste(caption, (0, picture.height))
    with atomic_write(out) as temporary:
        whole.save(temporary, format="PNG")
    return out


def style_axes(axes: Axes, ink: str) -> None:
    """Draw grid, frame and tick labels of a chart in one color."""
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8, colors=ink, which="both")
    for edge in axes.spines.values():
        edge.set_color(ink)
        edge.set_alpha(0.4)
    axes.patch.set_alpha(0 if ink == INK else 1)


def to_png(figure: Figure) -> bytes:
    """Render a figure as PNG without a software tag, so that the bytes depend on the figure only."""
    adapt_texts(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def write_png(figure: Figure, out: Path) -> Path:
    """Write a figure without a caption as PNG and return its path."""
    content = to_png(figure)
    with atomic_write(out) as temporary:
        temporary.write_bytes(content)
    return out
