"""Features of a dataset.   S samples  D width"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.device import Place
from openjepa.encoder import Encoder
from openjepa.types import Dataset, Modality

PIXELS = 32  # larger pictures are averaged down to this side for the raw-pixel baseline


class Features(NamedTuple):
    """A row of features and a label for each sample."""

    x: Float[Tensor, "S D"]
    label: Int[Tensor, "S"]


@torch.no_grad()
def embed(encoder: Encoder, modality: Modality, data: Dataset, place: Place, batch: int = 256) -> Features:
    """The mean over tokens of the encoder's output for each evaluation view, and labels.

    Source: paper, appendix A.2, "last layer average-pooled". Samples that cannot be decoded are left out.
    """
    encoder = encoder.to(place.device)
    pooled, labels = [], []
    for index in torch.arange(len(data)).split(batch):
        read = data.read(index, None)
        with place.autocast():
            (tokens,) = encoder(modality.tokens(place.move(read.views[0])))
        there = read.label >= 0
        pooled.append(tokens.x.float().mean(1).cpu()[there])
        labels.append(read.label[there])
    return Features(torch.cat(pooled), torch.cat(labels))


def raw(data: Dataset, batch: int = 256) -> Features:
    """The evaluation views themselves as features, pictures averaged down to 32×32: the baseline that knows nothing."""
    rows, labels = [], []
    for index in torch.arange(len(data)).split(batch):
        read = data.read(index, None)
        view = read.views[0].float()
        if view.dim() == 4 and max(view.shape[2:]) > PIXELS:
            view = torch.nn.functional.adaptive_avg_pool2d(view, PIXELS)
        there = read.label >= 0
        rows.append(view.flatten(1)[there])
        labels.append(read.label[there])
    return Features(torch.cat(rows), torch.cat(labels))
