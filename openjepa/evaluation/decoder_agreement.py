"""Measure whether sampled images agree with the features from which they were sampled."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.rng import epoch_order

CENTER_BOX = (0.25, 0.25, 0.75, 0.75)  # the decoded block; the same for all images, as features depend on position

MIN_IMAGES = 20  # images that a measurement needs


class Agreement(NamedTuple):
    """How well the features of sampled images match those from which they were sampled."""

    retrieval: float  # fraction of samples whose nearest neighbor among all images is the image they come from
    shuffled: float  # control: retrieval of samples from another image's condition
    chance: float  # retrieval by chance
    cosine: float  # mean cosine with the image they come from
    cosine_other: float  # mean cosine with the other images


def derangement(count: int, seed: int) -> Int[Tensor, "B"]:
    """Assign each image another one at random, by a permutation that is a single cycle."""
    ring = torch.from_numpy(epoch_order(seed, 0, count))
    return torch.empty_like(ring).scatter(0, ring, ring.roll(1))


def measure_agreement(
    truth: Float[Tensor, "B D"], own: Float[Tensor, "B D"], control: Float[Tensor, "B D"]
) -> Agreement:
    """Compare features of samples with those of the images, row by row; `control` holds samples from other images.

    Features are centered by the mean over the images.
    """
    mean = truth.mean(0)
    images, samples, shuffled = (F.normalize(features - mean, dim=1) for features in (truth, own, control))
    rows = torch.arange(len(truth))
    cosine = samples @ images.T
    others = (cosine.sum() - cosine.diagonal().sum()) / (len(truth) * (len(truth) - 1))
    hits, control_hits = (((each @ images.T).argmax(1) == rows).float().mean() for each in (samples, shuffled))
    return Agreement(float(hits), float(control_hits), 1 / len(truth), float(cosine.diagonal().mean()), float(others))
