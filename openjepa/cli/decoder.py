"""Command `jepa decoder`: train a decoder on top of a run, sample from it, measure it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from openjepa.cli.pretrain import pretrain
from openjepa.core.arguments import Images, Run
from openjepa.core.console import info, warn
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.evaluation.decoder import (
    FLOW_STEPS,
    decoder_conditions,
    decoder_mask,
    draw_samples,
    load_decoder,
    pooled_condition,
)
from openjepa.evaluation.decoder_agreement import CENTER_BOX, MIN_IMAGES, Agreement, derangement, feature_agreement
from openjepa.masking.region import Box
from openjepa.nn.flow import Conditions
from openjepa.recipes.decoder import TrainDecoder, decoder_config
from openjepa.training.config import config_differences, load_config
from openjepa.training.device import Precision
from openjepa.viz.canvas import save_figure
from openjepa.viz.inputs import FigureOptions, load_images, output_file, read_images
from openjepa.viz.samples import samples_figure


def train_decoder(settings: TrainDecoder) -> Path:
    """The decoder's folder, a run like any other: resumed exactly, logged, with its curves."""
    wanted = decoder_config(settings)
    if (wanted.out / "config.json").is_file():
        other = [each for each in config_differences(load_config(wanted.out), wanted) if each.startswith("method.")]
        if other:
            raise UserError(
                f"{wanted.out} holds another decoder ({'; '.join(other)}): give those settings, or another --out"
            )
    pretrain(wanted)
    return wanted.out


@dataclass(frozen=True, kw_only=True)
class SampleDecoder:
    """Draws pictures several times from what the representation holds of them: what agrees is in it, what varies is not."""

    decoder: Run  # what jepa decoder train made
    images: Images = ()  # pictures or folders of them; by default what the decoder learnt from
    count: int = 6  # pictures
    samples: int = 6  # of each
    box: Box | None = None  # of a decoder of predictions: the block, as shares from 0 to 1; by default any
    steps: int = FLOW_STEPS  # of the flow
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    out: Path | None = None  # a .png; by default DECODER/figures/samples.png


def sample_decoder(settings: SampleDecoder) -> Path:
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


@dataclass(frozen=True, kw_only=True)
class MeasureDecoder:
    """Measures whether what is drawn agrees with what it was drawn from, and a control that should not."""

    decoder: Run  # what jepa decoder train made
    images: Images = ()  # pictures that it did not learn from
    count: int = 256
    steps: int = FLOW_STEPS
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"


def measure_decoder(settings: MeasureDecoder) -> Agreement:
    """Retrieval by pooled features of what is drawn, seen by itself, among those of what is there, seen by itself.

    Of a decoder of features that is the very condition. Features are less their mean over the pictures, then compared by the
    cosine. Also in DECODER/agreement.json.
    """
    decoder = load_decoder(Path(settings.decoder), settings.device, settings.precision)
    roots = settings.images or decoder.data.root
    if not settings.images:
        warn("these are pictures that the decoder learnt from: give others to know what it does with new ones")
    found = read_images(tuple(roots), decoder.data, settings.count)
    if len(found.view) < MIN_IMAGES:
        raise UserError(f"{len(found.view)} pictures are too few to be told apart: give {MIN_IMAGES} or more")
    mask = decoder_mask(decoder, len(found.view), CENTER_BOX if decoder.predicts else None, settings.seed)
    given = decoder_conditions(decoder, found.view, mask)
    other = Conditions(given.x[derangement(len(found.view), settings.seed)])
    here = decoder.data.tokens(found.view).take(mask.target[:, 0])
    truth = pooled_condition(decoder, here)
    own, control = (
        pooled_condition(
            decoder,
            here._replace(x=draw_samples(decoder, found.view, each, mask, 1, settings.seed, settings.steps).raw[0]),
        )
        for each in (given, other)
    )
    result = feature_agreement(truth, own, control)
    info(
        f"of {len(found.view)} pictures drawn once, {100 * result.retrieval:.1f} % are found by their features (from another's "
        f"condition {100 * result.shuffled:.1f} %, by chance {100 * result.chance:.1f} %); cosine with their own "
        f"{result.cosine:.2f}, with others' {result.cosine_other:.2f}"
    )
    with atomic_write(Path(settings.decoder) / "agreement.json") as temporary:
        temporary.write_text(
            json.dumps(
                {
                    **result._asdict(),
                    "step": decoder.step,
                    "count": len(found.view),
                    "images": list(roots),
                    "seed": settings.seed,
                },
                indent=1,
            )
        )
    return result


ACTIONS = {
    "train": (TrainDecoder, train_decoder),
    "sample": (SampleDecoder, sample_decoder),
    "measure": (MeasureDecoder, measure_decoder),
}
HELP = """jepa decoder: draw what a representation contains

  jepa decoder train RUN                train a decoder on top of a run, which stays as it is
  jepa decoder sample DECODER IMAGES    draw each image several times from what the representation contains of it
  jepa decoder measure DECODER IMAGES   measure whether the samples agree with their condition, beside a control

jepa decoder train --help lists the settings of an action"""


def main(arguments: list[str]) -> None:
    """Parse the action and its settings, and run it."""
    action = arguments[0] if arguments else ""
    if action in ("-h", "--help"):
        print(HELP)
        return
    if action not in ACTIONS:
        raise UserError(f"jepa decoder needs an action ({', '.join(ACTIONS)}), as in jepa decoder train RUN")
    settings, run = ACTIONS[action]
    run(tyro.cli(settings, prog=f"jepa decoder {action}", args=arguments[1:]))
