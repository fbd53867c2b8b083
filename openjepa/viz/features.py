"""Draw patch features as colors: their first three principal components.   B images  N patches  D features"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.capabilities import PatchGrid, TubeletGrid, plural_of, require
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.viz.basis import Basis
from openjepa.viz.canvas import CaptionedFigure, draw_tiles, fade
from openjepa.viz.clip_features import draw_clip_features
from openjepa.viz.inputs import (
    ImageBatch,
    ImageFeatures,
    load_encoder,
    load_images,
    patch_features,
    with_default_images,
)
from openjepa.viz.settings import FeaturesOptions

BASIS_IMAGES = 64  # images that the principal components are computed over; the first of them are drawn


def show_features(settings: FeaturesOptions) -> list[CaptionedFigure]:
    """Draw one figure: images above the colors of their patches."""
    settings = with_default_images(settings)  # type: ignore[assignment]
    encoder = load_encoder(settings)
    if settings.foreground:
        require(encoder.modality, PatchGrid, "jepa show features --foreground")
    images = load_images(settings, encoder.data, BASIS_IMAGES)
    return [draw_features(patch_features(settings, encoder, images, settings.layer), settings)]


def features_figure(encoder: PretrainedEncoder, images: ImageBatch, foreground: bool = False) -> CaptionedFigure:
    """Draw the figure for images that are already loaded."""
    settings = FeaturesOptions(run="", foreground=foreground)
    return draw_features(patch_features(settings, encoder, images), settings)


def draw_features(features: ImageFeatures, settings: FeaturesOptions) -> CaptionedFigure:
    """Draw the images to show in columns, above the colors of their patches. Of clips, strips of frames."""
    if isinstance(features.images.data, TubeletGrid):
        return draw_clip_features(features, settings.layer)
    basis, images = Basis.of(features.x), features.images
    x, pictures = features.x[: images.num_shown], images.pictures[: images.num_shown]
    rows = [pictures, [images.paint(row, colors) for row, colors in enumerate(basis.colors(x))]]
    plural = plural_of(images.data)
    token, tokens = ("patch", "patches") if isinstance(images.data, PatchGrid) else ("token", "tokens")
    labels = [plural[:-1], f"features of\nblock {settings.layer}" if settings.layer != -1 else "features"]
    by_position = len(basis.mean) > 1
    mean = ", mean at each position subtracted" if by_position else ""
    caption = (
        f"First three principal components of {token} features as red, green and blue, one basis computed over "
        f"{len(features.x)} {plural} ({100 * basis.share:.0f} % of the variance{mean}). "
        f"{tokens.capitalize()} of similar color have similar features."
    )
    if settings.foreground:
        rows += foreground_rows(basis, x, pictures, images.data)
        labels += ["one side of the\nfirst component", "components of\nthat side"]
        side = "with the longer tail" if by_position else "that covers less of the border"
        caption += f" Below: the side of the first component {side}, and the principal components of that side alone."
    figure = draw_tiles(rows, images.titles[: images.num_shown], labels)
    return CaptionedFigure("features", "Principal components of patch features", caption, figure)


def foreground_rows(
    basis: Basis, x: Float[Tensor, "B N D"], pictures: list[np.ndarray], data: Any
) -> list[list[np.ndarray]]:
    """Draw the foreground of each image, and its principal components as colors on white."""
    grid = data.grid
    front = foreground_mask(basis, x, grid)
    x = x - basis.mean
    inner = Basis.of(x[front][None], by_position=False) if front.sum() > 3 else basis
    faded, colored = [], []
    for picture, colors, mask in zip(pictures, inner.colors(x), front, strict=True):
        faded.append(fade(picture, mask.numpy().reshape(grid), data.patch))
        colored.append(color_tile(colors * mask[:, None] + ~mask[:, None], grid))
    return [faded, colored]


def color_tile(colors: Float[Tensor, "N 3"], grid: tuple[int, int]) -> np.ndarray:
    """Convert the colors of patches to an image with one pixel per patch."""
    return (colors.view(*grid, 3) * 255).round().to(torch.uint8).numpy()


def foreground_mask(basis: Basis, x: Float[Tensor, "B N D"], grid: tuple[int, int]) -> Bool[Tensor, "B N"]:
    """Select one side of the first component as the foreground.

    If the mean at each position is subtracted, it is the side of the longer tail (positive, see `Basis.of`): every
    position is then on either side about equally often. Otherwise it is the side that covers less of the image borders.
    Source: Oquab et al., 2023, figure 1. Differs: the side is chosen by a rule, not by hand.
    """
    front = basis.project(x)[..., 0].view(-1, *grid) > 0
    if len(basis.mean) > 1:
        return front.flatten(1)
    edge = torch.ones(grid, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    if edge.all() or front[:, edge].float().mean() <= front.float().mean():
        return front.flatten(1)
    return ~front.flatten(1)
