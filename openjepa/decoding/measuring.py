"""`jepa decode measure`: whether what a decoder draws agrees with what it was drawn from, beside a control.   B pictures  D width"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.arguments import Images, Run
from openjepa.core.console import info, warn
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.core.rng import epoch_order
from openjepa.decoding.drawing import STEPS, conditions, draw, mask_of, opened, pooled
from openjepa.figures.shown import some
from openjepa.nn.flow import Conditions
from openjepa.training.device import Precision

CENTRE = 0.25, 0.25, 0.75, 0.75  # the block that is drawn to be measured, in all pictures: features tell places, too

FEWEST = 20  # pictures that an agreement is measured on


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Measures whether what is drawn agrees with what it was drawn from, and a control that should not."""

    decoder: Run  # what jepa decode train made
    images: Images = ()  # pictures that it did not learn from
    count: int = 256
    steps: int = STEPS
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"


class Agreement(NamedTuple):
    """How often a drawn picture's features are nearest, of all pictures', to those it was drawn from."""

    retrieval: float
    shuffled: float  # the same, drawn from another picture's condition: the control
    chance: float
    cosine: float  # of a drawn picture with its own, mean
    cosine_other: float  # with others', mean


def measure(settings: Measure) -> Agreement:
    """Retrieval by pooled features of what is drawn, seen by itself, among those of what is there, seen by itself.

    Of a decoder of features that is the very condition. Features are less their mean over the pictures, then compared by the
    cosine. Also in DECODER/agreement.json.
    """
    decoder = opened(Path(settings.decoder), settings.device, settings.precision)
    roots = settings.images or decoder.data.root
    if not settings.images:
        warn("these are pictures that the decoder learnt from: give others to know what it does with new ones")
    found = some(tuple(roots), decoder.data, settings.count)
    if len(found.view) < FEWEST:
        raise UserError(f"{len(found.view)} pictures are too few to be told apart: give {FEWEST} or more")
    mask = mask_of(decoder, len(found.view), CENTRE if decoder.predicts else None, settings.seed)
    given = conditions(decoder, found.view, mask)
    other = Conditions(given.x[strangers(len(found.view), settings.seed)])
    here = decoder.data.tokens(found.view).take(mask.target[:, 0])
    truth = pooled(decoder, here)
    own, control = (
        pooled(decoder, here._replace(x=draw(decoder, found.view, each, mask, 1, settings.seed, settings.steps).raw[0]))
        for each in (given, other)
    )
    result = agreement(truth, own, control)
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


def strangers(count: int, seed: int) -> Int[Tensor, "B"]:
    """For each picture another one, drawn at random: all in one ring."""
    ring = torch.from_numpy(epoch_order(seed, 0, count))
    return torch.empty_like(ring).scatter(0, ring, ring.roll(1))


def agreement(truth: Float[Tensor, "B D"], own: Float[Tensor, "B D"], control: Float[Tensor, "B D"]) -> Agreement:
    """Of drawn pictures' features, row by row, with those they were drawn from."""
    mean = truth.mean(0)
    there, drawn, shuffled = (F.normalize(each - mean, dim=1) for each in (truth, own, control))
    right = torch.arange(len(truth))
    cosine = drawn @ there.T
    others = (cosine.sum() - cosine.diagonal().sum()) / (len(truth) * (len(truth) - 1))
    hits, misses = (((each @ there.T).argmax(1) == right).float().mean() for each in (drawn, shuffled))
    return Agreement(float(hits), float(misses), 1 / len(truth), float(cosine.diagonal().mean()), float(others))
