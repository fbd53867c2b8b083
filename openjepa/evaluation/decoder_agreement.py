"""Measure whether decoded pictures agree with what they were decoded from."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.rng import epoch_order

CENTER_BOX = (
    0.25,
    0.25,
    0.75,
    0.75,
)  # the block that is drawn to be measured, in all pictures: features tell places, too

MIN_IMAGES = 20  # pictures that an agreement is measured on


class Agreement(NamedTuple):
    """How often a drawn picture's features are nearest, of all pictures', to those it was drawn from."""

    retrieval: float
    shuffled: float  # the same, drawn from another picture's condition: the control
    chance: float
    cosine: float  # of a drawn picture with its own, mean
    cosine_other: float  # with others', mean


def derangement(count: int, seed: int) -> Int[Tensor, "B"]:
    """For each picture another one, drawn at random: all in one ring."""
    ring = torch.from_numpy(epoch_order(seed, 0, count))
    return torch.empty_like(ring).scatter(0, ring, ring.roll(1))


def feature_agreement(
    truth: Float[Tensor, "B D"], own: Float[Tensor, "B D"], control: Float[Tensor, "B D"]
) -> Agreement:
    """Of drawn pictures' features, row by row, with those they were drawn from."""
    mean = truth.mean(0)
    there, drawn, shuffled = (F.normalize(each - mean, dim=1) for each in (truth, own, control))
    right = torch.arange(len(truth))
    cosine = drawn @ there.T
    others = (cosine.sum() - cosine.diagonal().sum()) / (len(truth) * (len(truth) - 1))
    hits, misses = (((each @ there.T).argmax(1) == right).float().mean() for each in (drawn, shuffled))
    return Agreement(float(hits), float(misses), 1 / len(truth), float(cosine.diagonal().mean()), float(others))
