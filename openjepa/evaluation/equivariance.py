"""Does a world model of images know what a transform does? The mean reciprocal rank of imagined features.

B images  K candidates  N tokens  E width  A parameters of an action
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Real
from rich.progress import track
from torch import Tensor

from openjepa.core.bootstrap import bootstrap_interval
from openjepa.core.console import console
from openjepa.core.rng import CounterRNG
from openjepa.data.photometric import JITTER, Photometric, PhotometricConfig, difference, transform
from openjepa.evaluation.imagination import Imagination


class Rank(NamedTuple):
    """A mean reciprocal rank with its 95 % interval over images."""

    name: str
    value: float
    low: float
    high: float


class Equivariance(NamedTuple):
    """What a world model knows of transforms."""

    ranks: tuple[Rank, ...]  # all colors at once, then each parameter alone, then controls
    chance: float
    images: int
    candidates: int


def measure_equivariance(
    imagination: Imagination, views: Real[Tensor, "B C H W"], candidates: int, seed: int = 0
) -> Equivariance:
    """Measure the mean reciprocal rank (MRR) over images.

    From the clean image and action i, the predictor imagines the features of the transformed image. The rank of the
    true features i among those of all K transformed images, by their distance to the imagined ones, is 1 at best. With
    imagined features that do not depend on the action, MRR is chance: (1 + 1/2 + … + 1/K) / K.

    Source: Garrido et al., 2024, arXiv 2403.00504, section 4: K = 256; direction: imagined features look for true ones.
    """
    full = imagination.method.config.transforms
    rows = [rank_row("all", imagination, views, full, candidates, seed)]
    rows += [rank_row(name, imagination, views, only(full, name), candidates, seed) for name in JITTER]
    rows += [rank_row("actions scrambled", imagination, views, full, candidates, seed, scramble=True)]
    return Equivariance(tuple(rows), chance_rank(candidates), len(views), candidates)


def rank_row(
    name: str,
    imagination: Imagination,
    views: Real[Tensor, "B C H W"],
    transforms: PhotometricConfig,
    candidates: int,
    seed: int,
    scramble: bool = False,
) -> Rank:
    """Measure one row: the mean reciprocal rank over images of candidates drawn from `transforms`."""
    per_image = []
    for number, view in enumerate(track(views, f"{name:<18}", console=console, transient=True)):
        rng = CounterRNG.of(seed, 0, number * candidates + np.arange(candidates))
        parameters = draw_jitter(transforms, rng)
        action = difference(Photometric.of(candidates), parameters)
        order = torch.roll(torch.arange(candidates), 1) if scramble else torch.arange(candidates)
        imagined = imagination.imagine(view[None], action[order][None])[0]
        true = imagination.features(transform(view.expand(candidates, -1, -1, -1), parameters))
        per_image.append(reciprocal_rank(imagined, true))
    ranks = torch.tensor(per_image)
    return Rank(name, float(ranks.mean()), *bootstrap_interval(ranks))


def draw_jitter(transforms: PhotometricConfig, rng: CounterRNG) -> Photometric:
    """Draw changes of color for every candidate: none stays as it is."""
    return PhotometricConfig(1.0, *(getattr(transforms, name) for name in JITTER)).draw(rng, "candidate", False)


def only(transforms: PhotometricConfig, name: str) -> PhotometricConfig:
    """Return transforms that change this parameter alone."""
    others = {each: 0.0 for each in JITTER if each != name}
    return PhotometricConfig(**{name: getattr(transforms, name)} | others)


def reciprocal_rank(imagined: Float[Tensor, "K N E"], true: Float[Tensor, "K N E"]) -> float:
    """Return the mean over i of 1 / (rank of true features i by their distance to imagined features i).

    Candidates at the same distance share the mean of their ranks, so that collapsed features do not win.
    """
    distance = torch.cdist(imagined.flatten(1).double(), true.flatten(1).double())
    own = distance.diagonal()[:, None]
    nearer, equal = (distance < own).sum(1), (distance == own).sum(1)
    return float((1 / (nearer + (equal + 1) / 2)).mean())


def chance_rank(candidates: int) -> float:
    """Return the mean reciprocal rank of a random order."""
    return float((1 / torch.arange(1, candidates + 1, dtype=torch.float64)).mean())
