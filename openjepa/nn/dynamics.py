"""Predict the next latent from this one and an action.   B batch  N cells  D width  A action's width"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class LocalDynamics(nn.Module):
    """Change each cell of a map by its neighbors and the action: what happens in one place has nearby causes.

    The action scales and shifts the hidden channels (FiLM; Perez et al., AAAI 2018, arXiv 1709.07871).
    """

    def __init__(self, dim: int, action_dim: int, cells: tuple[int, int], hidden: int = 24):
        super().__init__()
        self.cells = cells
        self.convs = nn.ModuleList([nn.Conv2d(dim, hidden, 3, padding=1), nn.Conv2d(hidden, hidden, 3, padding=1)])
        self.films = nn.ModuleList(nn.Linear(action_dim, 2 * hidden) for _ in range(2))
        self.out = nn.Conv2d(hidden, dim, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, state: Float[Tensor, "B N D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B N D"]:
        x = state.transpose(1, 2).unflatten(2, self.cells)
        for conv, film in zip(self.convs, self.films, strict=True):
            scale, shift = film(action)[..., None, None].chunk(2, 1)
            x = F.silu(conv(x) * (1 + scale) + shift)
        return state + self.out(x).flatten(2).transpose(1, 2)


class MLPDynamics(nn.Module):
    """Change a vector by an MLP of it and the action."""

    def __init__(self, dim: int, action_dim: int, hidden: int = 256):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim + action_dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, dim)
        )

    def forward(self, state: Float[Tensor, "B 1 D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B 1 D"]:
        return state + self.layers(torch.cat([state, action[:, None]], -1))


class GRUDynamics(nn.Module):
    """Let a GRU change a vector, with the action as its input."""

    def __init__(self, dim: int, action_dim: int):
        super().__init__()
        self.cell = nn.GRUCell(action_dim, dim)

    def forward(self, state: Float[Tensor, "B 1 D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B 1 D"]:
        return self.cell(action, state[:, 0])[:, None]
