"""Spread distances from a goal over a map, as value iteration does.

G goals  B tasks  R states  N cells  D width of a latent  M maps  K moves  F features  S width of a summary
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.nn.locator import Location

START = 10.0  # of the anchor: distances come down from there


class ValueIteration(nn.Module):
    """Repeat D ← min(anchor, min over moves of conv(D) + cost): distances to a goal, as learned maps.

    Anchor and cost are functions of the goal's latent, which shows the walls. The same weights in every iteration; the
    first ones shift a map by one cell.
    Source: value iteration networks (Tamar et al., NeurIPS 2016, arXiv 1602.02867), as a minimum over costs.
    """

    def __init__(self, dim: int, cells: tuple[int, int], maps: int = 8, moves: int = 6, iterations: int = 22):
        super().__init__()
        self.cells, self.maps, self.iterations = cells, maps, iterations
        self.anchor = nn.Conv2d(dim, maps, 3, padding=1)
        self.cost = nn.Sequential(nn.Conv2d(dim, 24, 3, padding=1), nn.SiLU(), nn.Conv2d(24, maps * moves, 1))
        self.spread = nn.Conv2d(maps, maps * moves, 3, padding=1, padding_mode="replicate", bias=False)
        self.initialize(moves)

    @torch.no_grad()
    def initialize(self, moves: int) -> None:
        """Let the moves shift a map to the four neighbors, at a cost of about 1; those beyond four keep it."""
        nn.init.constant_(self.anchor.bias, START)  # type: ignore[arg-type]
        nn.init.ones_(self.cost[2].bias)  # type: ignore[arg-type]
        self.spread.weight.mul_(0.1)
        offsets = [(0, 1), (2, 1), (1, 0), (1, 2)]
        for number in range(moves):
            row, column = offsets[number] if number < len(offsets) else (1, 1)
            for each in range(self.maps):
                self.spread.weight[number * self.maps + each, each, row, column] += 1.0

    def forward(self, goal: Float[Tensor, "G N D"]) -> Float[Tensor, "G N M"]:
        """Return the distance maps of each goal."""
        x = goal.transpose(1, 2).unflatten(2, self.cells)
        anchor, cost = self.anchor(x), self.cost(x)
        distance = anchor
        for _ in range(self.iterations):
            moved = (self.spread(distance) + cost).unflatten(1, (-1, self.maps)).amin(1)
            distance = torch.minimum(anchor, moved)
        return distance.flatten(2).mT


class FieldReader(nn.Module):
    """Read something about a state and a goal: from the goal's maps where the state attends, and from its summary."""

    def __init__(self, maps: int, cells: tuple[int, int], summary: int, out: int, features: int = 32):
        super().__init__()
        self.cells = cells
        self.features = nn.Conv2d(maps, features, 3, padding=1, padding_mode="replicate")
        self.head = nn.Sequential(
            nn.Linear(features + summary, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, out)
        )

    def field(self, maps: Float[Tensor, "G N M"]) -> Float[Tensor, "G N F"]:
        """Return what is read, once per goal."""
        return self.features(maps.mT.unflatten(2, self.cells)).flatten(2).mT

    def read(self, field: Float[Tensor, "B G N F"], states: Location) -> Float[Tensor, "B G R O"]:
        """Return the outputs for R states and G goals of each of B tasks; `states` has B · R rows."""
        batch, goals = field.shape[:2]
        focus, summary = (part.unflatten(0, (batch, -1)) for part in (states.focus, states.summary))
        attended = focus @ field.transpose(1, 2).flatten(2)  # B R G·F
        attended = attended.unflatten(2, (goals, -1)).transpose(1, 2)  # B G R F
        return self.head(torch.cat([attended, summary[:, None].expand(-1, goals, -1, -1)], -1))
