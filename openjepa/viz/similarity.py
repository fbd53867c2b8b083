"""Cosine similarity of one patch to all others.   B pictures  N patches  D width"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.viz.canvas import COLORS, TILE_SIDE, CaptionedFigure, ColorScale, enlarge, heatmap, outline, tile_figure
from openjepa.viz.features import BASIS_IMAGES, Basis
from openjepa.viz.inputs import (
    MIN_COMPANY,
    FigureOptions,
    ImageFeatures,
    load_encoder,
    load_images,
    patch_features,
    with_default_images,
)


@dataclass(frozen=True, kw_only=True)
class SimilarityOptions(FigureOptions):
    """Draws where else the encoder sees what it sees in one patch of the first picture."""

    at: tuple[tuple[float, float], ...] = ((0.5, 0.5),)  # x and y of the patch, as shares of width and height
    layer: int = -1  # a block, counted from 0, or from the end; -1 is the encoder's output


def similarity(settings: SimilarityOptions) -> list[CaptionedFigure]:
    """A figure with a row for each patch asked for."""
    settings = with_default_images(settings)  # type: ignore[assignment]
    for x, y in settings.at:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise UserError(f"({x:g}, {y:g}) is outside the picture: x and y go from 0 to 1, as --at 0.5 0.5")
    this = load_encoder(settings)
    found = load_images(settings, this.data, BASIS_IMAGES)
    return [draw_similarity(patch_features(settings, this, found, settings.layer), settings)]


def draw_similarity(all_seen: ImageFeatures, settings: SimilarityOptions) -> CaptionedFigure:
    count, grid, patch = all_seen.shown.first, all_seen.grid, all_seen.shown.data.patch
    pictures = all_seen.shown.pictures[:count]
    centred = all_seen.x - Basis.of(all_seen.x).mean
    rows, labels = [], []
    for x, y in settings.at:
        place = patch_at(x, y, grid)
        values = patch_cosines(centred[:count], place).view(-1, *grid).numpy()
        marked = np.zeros(grid, bool)
        marked.flat[place] = True
        others = np.sort(values, None)  # without the patch itself
        scale = ColorScale(
            "cosine", float(np.percentile(values, 2)), float(others[-2] if values.size > 1 else others[-1])
        )
        large = enlarge(pictures[0], 2 * TILE_SIDE)
        rows.append(
            [outline(large, marked, patch * (len(large) // len(pictures[0])), COLORS[5], width=4), *pictures[1:]]
        )
        rows.append([heatmap(each, scale) for each in values])
        labels += [f"patch at\n{x:g}, {y:g}", f"cosine {scale.low:.2f}\nto {scale.high:.2f}"]
    caption = (
        "Where else the encoder sees what it sees in the framed patch: the cosine of patch features, "
        + ("each place's mean" if len(all_seen.x) >= MIN_COMPANY else "the mean")
        + " taken out; bright is alike, one scale for a row, up to the best but the patch itself."
    )
    figure = tile_figure(rows, all_seen.shown.titles[:count], labels)
    return CaptionedFigure("similarity", "Where else that is", caption, figure)


def patch_at(x: float, y: float, grid: tuple[int, int]) -> int:
    """The number of the patch that a point lies in."""
    row, column = min(int(y * grid[0]), grid[0] - 1), min(int(x * grid[1]), grid[1] - 1)
    return row * grid[1] + column


def patch_cosines(x: Float[Tensor, "B N D"], place: int) -> Float[Tensor, "B N"]:
    """Of every patch with that patch of the first picture."""
    return F.cosine_similarity(x, x[0, place], dim=-1)
