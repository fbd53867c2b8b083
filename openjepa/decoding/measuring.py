"""`jepa decode measure`: whether what a decoder draws agrees with what it was drawn from, beside a control.   B pictures  D width"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

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
from openjepa.nn.flow import Conditions
from openjepa.training.device import Precision
from openjepa.viz.inputs import read_images


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Measures whether what is drawn agrees with what it was drawn from, and a control that should not."""

    decoder: Run  # what jepa decode train made
    images: Images = ()  # pictures that it did not learn from
    count: int = 256
    steps: int = FLOW_STEPS
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"


def measure(settings: Measure) -> Agreement:
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
