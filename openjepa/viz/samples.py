"""Draw the samples of a decoder beside the images they come from.   S samples  B images  H W patches"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from openjepa.core.types import Masks
from openjepa.evaluation.decoder import DecoderSamples, LoadedDecoder
from openjepa.masking.region import index_mask
from openjepa.viz.canvas import (
    COLORS,
    CaptionedFigure,
    ColorScale,
    RGBImage,
    colorize,
    draw_tiles,
    enlarge,
    fade,
    outline,
)
from openjepa.viz.inputs import ImageBatch

MAX_STD = 96.0  # of 255: the standard deviation that gets the brightest color


def samples_figure(decoder: LoadedDecoder, images: ImageBatch, mask: Masks, samples: DecoderSamples) -> CaptionedFigure:
    """Draw image, context, samples with a frame around the decoded block, and their standard deviation.

    Source: figure 6 of the I-JEPA paper.
    """
    grid, patch, data = decoder.data.grid, decoder.data.patch, decoder.data
    std = samples.views.float().std(0, correction=0).mean(1) if len(samples.views) > 1 else None
    rows = []
    for row, picture in enumerate(images.pictures):
        inside = index_mask(mask.target[row, 0], None, grid[0] * grid[1]).reshape(grid)
        tiles = [data.picture(view[row]) for view in samples.views]
        if decoder.decodes_predictions:
            tiles = [fade(picture, ~inside, patch), *(frame_block(each, inside, patch) for each in tiles)]
        if std is not None:
            tiles.append(colorize(std[row].numpy(), ColorScale("", 0.0, MAX_STD)))
        rows.append([picture, *tiles])
    columns = ["image", *(["context"] if decoder.decodes_predictions else [])]
    columns += [f"sample {number + 1}" for number in range(len(samples.views))]
    columns += ["standard deviation"] if std is not None else []
    caption = (
        f"{len(samples.views)} samples for each image, decoded only from {describe_condition(decoder)} "
        f"(decoder trained for {decoder.step:,} steps). What the samples share is in the representation, "
        "what varies is not."
    )
    if std is not None:
        caption += f" Standard deviation over the samples, on a scale of 0 to {MAX_STD:.0f} of 255: bright is high."
    return CaptionedFigure("samples", "Decoded samples", caption, draw_tiles(rows, columns, images.titles))


def frame_block(picture: RGBImage, inside: Bool[np.ndarray, "H W"], patch: int) -> RGBImage:
    """Enlarge an image and draw a frame around the decoded block."""
    large = enlarge(picture)
    return outline(large, inside, patch * (large.shape[0] // picture.shape[0]), COLORS[2])


def describe_condition(decoder: LoadedDecoder) -> str:
    """Return in words which features the decoder gets."""
    if not decoder.decodes_predictions:
        return "one vector, the mean of the image's patch features"
    if decoder.method.config.pooled:
        return "the mean of the features predicted for the framed block"
    return "the features predicted for each patch of the framed block"
