"""`jepa decode sample`: what a decoder draws from what the representation holds of pictures.

B pictures  T tokens drawn  D width  S samples of each
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openjepa.core.arguments import Images, Run
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.evaluation.decoder import FLOW_STEPS, decoder_conditions, decoder_mask, draw_samples, load_decoder
from openjepa.masking.region import Box
from openjepa.training.device import Precision
from openjepa.viz.canvas import save_figure
from openjepa.viz.inputs import FigureOptions, load_images, output_file
from openjepa.viz.samples import samples_figure


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
    asked = FigureOptions(run=settings.decoder, images=settings.images, count=settings.count, out=settings.out)
    out = output_file(asked, "samples")
    found = load_images(asked, decoder.data, of=settings.images or decoder.data.root)
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
    plate = samples_figure(decoder, found, mask, drawn)
    info(plate.caption)
    save_figure(plate, out)
    info(f"picture    {out}")
    return out
