"""Summarize a map by where it attends: a few values for what moves.   B batch  N cells  D width  K features"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

SHARPNESS = 4.0  # of the scores

FOCUS = 1.5  # times as sharp, so that values mix less across walls; at 4 they become rough


class Location(NamedTuple):
    """What a locator returns."""

    summary: Float[Tensor, "B S"]  # (x, y) in cells, then the features there
    focus: Float[Tensor, "B N"]  # a sharper attention; sums to 1


class Locator(nn.Module):
    """Attend to one part of a map; return its position, the mean under the attention, and features there.

    Attention begins the same everywhere: one that begins at a wrong part may stay there.
    Source: spatial soft-argmax (Levine et al., JMLR 2016, arXiv 1504.00702).
    """

    def __init__(self, dim: int, cells: tuple[int, int], features: int = 12, hidden: int = 32):
        super().__init__()
        self.cells, self.summary_dim = cells, 2 + features
        self.layers = nn.Sequential(nn.Conv2d(dim, hidden, 3, padding=1), nn.SiLU(), nn.Conv2d(hidden, 1 + features, 1))
        nn.init.zeros_(self.layers[-1].weight[:1])  # type: ignore[index]  # of the scores
        nn.init.zeros_(self.layers[-1].bias[:1])  # type: ignore[index]
        rows, columns = cells
        y, x = torch.meshgrid(torch.arange(rows).float(), torch.arange(columns).float(), indexing="ij")
        self.position: Tensor
        self.register_buffer("position", torch.stack([x, y], -1).flatten(0, 1), persistent=False)

    def forward(self, state: Float[Tensor, "B N D"]) -> Location:
        x = self.layers(state.transpose(1, 2).unflatten(2, self.cells)).flatten(2)  # B 1+K N
        scores = SHARPNESS * x[:, 0]
        values = torch.cat([self.position.expand(len(state), -1, -1), x[:, 1:].mT], -1)
        summary = (scores.softmax(-1)[..., None] * values).sum(1)
        return Location(summary, (FOCUS * scores).softmax(-1))
