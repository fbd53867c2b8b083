"""Inverse dynamics: guess the action between two latents.   B batch  N cells  D width  A action's width"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class LocalInverse(nn.Module):
    """Guess the action between two maps from local changes, summed over cells."""

    def __init__(self, dim: int, action_dim: int, cells: tuple[int, int], hidden: int = 24):
        super().__init__()
        self.cells = cells
        self.hidden, self.out = nn.Conv2d(2 * dim, hidden, 3, padding=1), nn.Conv2d(hidden, action_dim, 1)

    def forward(self, state: Float[Tensor, "B N D"], later: Float[Tensor, "B N D"]) -> Float[Tensor, "B A"]:
        x = torch.cat([state, later - state], -1).transpose(1, 2).unflatten(2, self.cells)
        return self.out(F.silu(self.hidden(x))).sum((2, 3))


class VectorInverse(nn.Module):
    """Guess the action between two vectors by an MLP."""

    def __init__(self, dim: int, action_dim: int, hidden: int = 64):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * dim, hidden), nn.SiLU(), nn.Linear(hidden, action_dim))

    def forward(self, state: Float[Tensor, "B N D"], later: Float[Tensor, "B N D"]) -> Float[Tensor, "B A"]:
        return self.layers(torch.cat([state, later], -1).flatten(1))
