"""Draw the cosine similarity of one patch to all others.   B images  N patches  D features"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from openjepa.core.capabilities import PatchGrid, TubeletGrid, require
from openjepa.core.errors import UserError
from openjepa.viz.canvas import (
    COLORS,
    TILE_SIDE,
    CaptionedFigure,
    ColorScale,
    RGBImage,
    colorize,
    draw_tiles,
    enlarge,
    outline,
)
from openjepa.viz.features import BASIS_IMAGES, Basis
from openjepa.viz.inputs import (
    MIN_REFERENCE,
    ImageFeatures,
    load_encoder,
    load_images,
    patch_features,
    with_default_images,
)
from openjepa.viz.settings import SimilarityOptions


def show_similarity(settings: SimilarityOptions) -> list[CaptionedFigure]:
    """Draw one figure with two rows for each patch. Raises UserError if a point is outside the image."""
    settings = with_default_images(settings)  # type: ignore[assignment]
    for x, y in settings.at:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise UserError(f"--at must be x and y from 0 to 1, got {x:g} {y:g}: try --at 0.5 0.5")
    encoder = load_encoder(settings)
    if isinstance(encoder.modality, TubeletGrid):
        raise UserError(f"similarity is drawn of images: of clips, jepa show track {settings.run} draws it over time")
    require(encoder.modality, PatchGrid, "jepa show similarity")
    images = load_images(settings, encoder.data, BASIS_IMAGES)
    return [draw_similarity(patch_features(settings, encoder, images, settings.layer), settings)]


def draw_similarity(features: ImageFeatures, settings: SimilarityOptions) -> CaptionedFigure:
    """Draw images above their cosines with a patch of the first image, for each point of the settings."""
    count, grid = features.images.num_shown, features.grid
    pictures = features.images.pictures[:count]
    centered = features.x - Basis.of(features.x).mean
    rows, labels = [], []
    for x, y in settings.at:
        patch = patch_at(x, y, grid)
        values = patch_cosines(centered[:count], patch).view(-1, *grid).numpy()
        scale = cosine_scale(values)
        rows.append([frame_patch(pictures[0], patch, grid, features.images.data.patch), *pictures[1:]])
        rows.append([colorize(each, scale) for each in values])
        labels += [f"patch at\n{x:g}, {y:g}", f"cosine {scale.low:.2f}\nto {scale.high:.2f}"]
    mean = "mean at each position" if len(features.x) >= MIN_REFERENCE else "mean"
    caption = (
        f"Cosine similarity of patch features to the framed patch ({mean} subtracted). Bright is high; each row has "
        "its own color scale, from the 2nd percentile to the highest value of another patch."
    )
    figure = draw_tiles(rows, features.images.titles[:count], labels)
    return CaptionedFigure("similarity", "Cosine similarity to one patch", caption, figure)


def frame_patch(picture: RGBImage, patch: int, grid: tuple[int, int], side: int) -> RGBImage:
    """Enlarge an image and draw a frame around one of its patches of `side` pixels."""
    inside = np.zeros(grid, bool)
    inside.flat[patch] = True
    large = enlarge(picture, 2 * TILE_SIDE)
    return outline(large, inside, side * (len(large) // len(picture)), COLORS[5], width=4)


def cosine_scale(values: Float[np.ndarray, "B H W"]) -> ColorScale:
    """Return the color scale of cosines: the highest one, of the patch with itself, does not count."""
    ordered = np.sort(values, None)
    high = ordered[-2] if values.size > 1 else ordered[-1]
    return ColorScale("cosine", float(np.percentile(values, 2)), float(high))


def patch_at(x: float, y: float, grid: tuple[int, int]) -> int:
    """Return the index of the patch that contains the point (x, y), both from 0 to 1."""
    row, column = min(int(y * grid[0]), grid[0] - 1), min(int(x * grid[1]), grid[1] - 1)
    return row * grid[1] + column


def patch_cosines(x: Float[Tensor, "B N D"], patch: int) -> Float[Tensor, "B N"]:
    """Compute the cosine of every patch with one patch of the first image."""
    return F.cosine_similarity(x, x[0, patch], dim=-1)
