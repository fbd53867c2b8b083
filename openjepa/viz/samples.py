"""Draw the samples of a decoder beside the pictures they come from."""

from __future__ import annotations

from openjepa.core.types import Masks
from openjepa.evaluation.decoder import DecoderSamples, LoadedDecoder
from openjepa.masking.region import index_mask
from openjepa.viz.canvas import COLORS, CaptionedFigure, ColorScale, enlarge, fade, heatmap, outline, tile_figure
from openjepa.viz.inputs import ImageBatch


def samples_figure(decoder: LoadedDecoder, found: ImageBatch, mask: Masks, drawn: DecoderSamples) -> CaptionedFigure:
    """As the paper's figure 6: the picture, what was shown, and samples with a frame about what was drawn; how much they vary."""
    grid, patch, data = decoder.data.grid, decoder.data.patch, decoder.data
    values = drawn.views.float().std(0, correction=0).mean(1) if len(drawn.views) > 1 else None
    rows = []
    for row, picture in enumerate(found.pictures):
        inside = index_mask(mask.target[row, 0], None, grid[0] * grid[1]).reshape(grid)
        samples = [data.picture(view[row]) for view in drawn.views]
        framing = [
            outline(enlarge(each), inside, patch * (enlarge(each).shape[0] // each.shape[0]), COLORS[2])
            for each in samples
        ]
        hole = [fade(picture, ~inside, patch)] if decoder.predicts else []
        varying = [heatmap(values[row].numpy(), ColorScale("", 0.0, 96.0))] if values is not None else []
        rows.append([picture, *hole, *(framing if decoder.predicts else samples), *varying])
    columns = [
        "picture",
        *(["what is shown"] if decoder.predicts else []),
        *(f"drawn {n + 1}" for n in range(len(drawn.views))),
    ]
    columns += ["how they vary"] if values is not None else []
    what = (
        "the mean of what the predictor expects in the frame"
        if decoder.predicts
        else "one vector, the mean of its patch features"
    )
    if decoder.predicts and not decoder.method.config.pooled:
        what = "what the predictor expects at every patch in the frame"
    caption = (
        f"Each picture drawn {len(drawn.views)} times from {what}; the decoder, of {decoder.step:,} steps, sees nothing else. What agrees is in the "
        "representation, what varies is not; bright: deviation over the samples, of 255, up to 96."
    )
    return CaptionedFigure(
        "samples", "What the representation holds", caption, tile_figure(rows, columns, found.titles)
    )
