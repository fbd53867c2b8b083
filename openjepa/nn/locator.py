"""Summarize a map by where it attends: a few numbers for what moves.   B batch  N cells  D width  K features"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Location(NamedTuple):
    """What a locator returns."""

    summary: Float[Tensor, "B S"]  # (x, y) in cells, then the features there
    attention: Float[Tensor, "B N"]  # sums to 1


class Locator(nn.Module):
    """Attend to one place of a map; return its position, the mean under the attention, and features there.

    Source: spatial soft-argmax (Levine et al., JMLR 2016, arXiv 1504.00702).
    """

    def __init__(self, dim: int, cells: tuple[int, int], features: int = 12):
        super().__init__()
        self.cells, self.summary_dim = cells, 2 + features
        self.score = nn.Conv2d(dim, 1, 3, padding=1)
        self.features = nn.Conv2d(dim, features, 3, padding=1)
        rows, columns = cells
        y, x = torch.meshgrid(torch.arange(rows).float(), torch.arange(columns).float(), indexing="ij")
        self.position: Tensor
        self.register_buffer("position", torch.stack([x, y], -1).flatten(0, 1), persistent=False)

    def forward(self, state: Float[Tensor, "B N D"]) -> Location:
        x = state.transpose(1, 2).unflatten(2, self.cells)
        attention = self.score(x).flatten(1).softmax(-1)
        values = torch.cat([self.position.expand(len(state), -1, -1), self.features(x).flatten(2).mT], -1)
        return Location((attention[..., None] * values).sum(1), attention)


class LocalInverse(nn.Module):
    """Guess the action between two maps from local changes, summed over cells."""

    def __init__(self, dim: int, action_dim: int, cells: tuple[int, int], hidden: int = 24):
        super().__init__()
        self.cells = cells
        self.hidden, self.out = nn.Conv2d(2 * dim, hidden, 3, padding=1), nn.Conv2d(hidden, action_dim, 1)

    def forward(self, state: Float[Tensor, "B N D"], following: Float[Tensor, "B N D"]) -> Float[Tensor, "B A"]:
        x = torch.cat([state, following - state], -1).transpose(1, 2).unflatten(2, self.cells)
        return self.out(F.silu(self.hidden(x))).sum((2, 3))
