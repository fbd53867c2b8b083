"""`jepa decode sample`: what a decoder draws from what the representation holds of pictures.

B pictures  T tokens drawn  D width  S samples of each
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openjepa.core.arguments import Images, Run
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.types import Masks
from openjepa.evaluation.decoder import (
    FLOW_STEPS,
    DecoderSamples,
    LoadedDecoder,
    decoder_conditions,
    decoder_mask,
    draw_samples,
    load_decoder,
)
from openjepa.figures.canvas import COLOURS, Plate, Scale, enlarged, framed, heat, paled, save, tiled
from openjepa.figures.shown import Asked, Shown, out_of, shown
from openjepa.masking.region import Box, index_mask
from openjepa.training.device import Precision


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draws pictures several times from what the representation holds of them: what agrees is in it, what varies is not."""

    decoder: Run  # what jepa decode train made
    images: Images = ()  # pictures or folders of them; by default what the decoder learnt from
    count: int = 6  # pictures
    samples: int = 6  # of each
    box: Box | None = None  # of a decoder of predictions: the block, as shares from 0 to 1; by default any
    steps: int = FLOW_STEPS  # of the flow
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    out: Path | None = None  # a .png; by default DECODER/figures/samples.png


def sample(settings: Sample) -> Path:
    """A PNG with a row for each picture. Mistake in a sentence if the decoder, a picture or the box is no good."""
    decoder = load_decoder(Path(settings.decoder), settings.device, settings.precision)
    if settings.box and not decoder.predicts:
        raise UserError("this decoder draws whole pictures from their features: leave --box out")
    if not 1 <= settings.samples <= 32 or settings.steps < 1:
        raise UserError("a picture is drawn 1 to 32 times, in one step at least: try --samples 6 --steps 25")
    asked = Asked(run=settings.decoder, images=settings.images, count=settings.count, out=settings.out)
    out = out_of(asked, "samples")
    found = shown(asked, decoder.data, of=settings.images or decoder.data.root)
    mask = decoder_mask(decoder, len(found.view), settings.box, settings.seed)
    drawn = draw_samples(
        decoder,
        found.view,
        decoder_conditions(decoder, found.view, mask),
        mask,
        settings.samples,
        settings.seed,
        settings.steps,
    )
    plate = grid_of(decoder, found, mask, drawn)
    info(plate.caption)
    save(plate, out)
    info(f"picture    {out}")
    return out


def grid_of(decoder: LoadedDecoder, found: Shown, mask: Masks, drawn: DecoderSamples) -> Plate:
    """As the paper's figure 6: the picture, what was shown, and samples with a frame about what was drawn; how much they vary."""
    grid, patch, data = decoder.data.grid, decoder.data.patch, decoder.data
    values = drawn.views.float().std(0, correction=0).mean(1) if len(drawn.views) > 1 else None
    rows = []
    for row, picture in enumerate(found.pictures):
        inside = index_mask(mask.target[row, 0], None, grid[0] * grid[1]).reshape(grid)
        samples = [data.picture(view[row]) for view in drawn.views]
        framing = [
            framed(enlarged(each), inside, patch * (enlarged(each).shape[0] // each.shape[0]), COLOURS[2])
            for each in samples
        ]
        hole = [paled(picture, ~inside, patch)] if decoder.predicts else []
        varying = [heat(values[row].numpy(), Scale("", 0.0, 96.0))] if values is not None else []
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
    return Plate("samples", "What the representation holds", caption, tiled(rows, columns, found.titles))
