"""Spread distances from a goal over a map, as value iteration does.

G goals  B tasks  R states  N cells  D width of a latent  M maps  K moves  F features  S width of a summary
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.nn.locator import Location

START = 10.0  # of the anchor: distances come down from there

SHIFT = 7.0  # logit of the cell that a move leads to before training, which then has nine tenths of the weight


class ValueIteration(nn.Module):
    """Repeat D ← min(anchor, min over moves of (mean of D around + cost)): distances to a goal, as learned maps.

    Anchor and cost are functions of the goal's latent, which shows the walls; the anchor is low at the goal. The
    weights of a mean are positive and sum to 1, and costs are positive, so that no iteration can blow up an error. All
    iterations have the same weights; the first ones shift a map by one cell.
    Source: value iteration networks (Tamar et al., NeurIPS 2016, arXiv 1602.02867), as a minimum over costs.
    """

    def __init__(self, dim: int, cells: tuple[int, int], maps: int = 8, moves: int = 6, iterations: int = 22):
        super().__init__()
        self.cells, self.maps, self.iterations = cells, maps, iterations
        self.anchor = nn.Conv2d(dim, maps, 3, padding=1)
        self.cost = nn.Sequential(nn.Conv2d(dim, 24, 3, padding=1), nn.SiLU(), nn.Conv2d(24, maps * moves, 1))
        self.spread = nn.Parameter(shift_logits(maps, moves))  # of the weights of the means
        nn.init.constant_(self.anchor.bias, START)  # type: ignore[arg-type]

    def forward(self, goal: Float[Tensor, "G N D"], focus: Float[Tensor, "G N"]) -> Float[Tensor, "G N M"]:
        """Return the distance maps of each goal; `focus` says where it is."""
        x = goal.transpose(1, 2).unflatten(2, self.cells)
        anchor = self.anchor(x) - START * focus.view(-1, 1, *self.cells)
        cost = F.softplus(self.cost(x))
        weight = self.spread.flatten(1).softmax(1).view_as(self.spread)
        distance = anchor
        for _ in range(self.iterations):
            around = F.conv2d(F.pad(distance, (1, 1, 1, 1), "replicate"), weight)
            distance = torch.minimum(anchor, (around + cost).unflatten(1, (-1, self.maps)).amin(1))
        return distance.flatten(2).mT


def shift_logits(maps: int, moves: int) -> Float[Tensor, "K M 3 3"]:
    """Return logits of means that shift each map to the four neighbors; moves beyond four keep it. K = M · moves."""
    logits = 0.1 * torch.randn(moves * maps, maps, 3, 3)
    offsets = [(0, 1), (2, 1), (1, 0), (1, 2)]
    for move in range(moves):
        row, column = offsets[move] if move < len(offsets) else (1, 1)
        for each in range(maps):
            logits[move * maps + each, each, row, column] += SHIFT
    return logits


class GoalField(NamedTuple):
    """What is read about goals, computed once for each."""

    maps: Float[Tensor, "B G N F"]
    summary: Float[Tensor, "B G S"]  # of the goal's latent


class FieldReader(nn.Module):
    """Read something about a state and a goal: from the goal's maps where the state attends, and from both summaries.

    Maps are smooth; how far the two summaries are apart tells the last step before the goal.
    """

    def __init__(self, maps: int, cells: tuple[int, int], summary: int, out: int, features: int = 32):
        super().__init__()
        self.cells = cells
        self.features = nn.Conv2d(maps, features, 3, padding=1, padding_mode="replicate")
        self.head = nn.Sequential(
            nn.Linear(features + 2 * summary + 1, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, out)
        )

    def field(self, maps: Float[Tensor, "R N M"], goal: Location, batch: int) -> GoalField:
        """Return what is read about R goals: those of a batch of tasks, as many for each."""
        features = self.features(maps.mT.unflatten(2, self.cells)).flatten(2).mT
        return GoalField(features.unflatten(0, (batch, -1)), goal.summary.unflatten(0, (batch, -1)))

    def read(self, field: GoalField, states: Location) -> Float[Tensor, "B G R O"]:
        """Return the outputs for R states and G goals of each of B tasks; `states` has B · R rows."""
        batch, goals = field.summary.shape[:2]
        focus, summary = (part.unflatten(0, (batch, -1)) for part in (states.focus, states.summary))
        features = focus @ field.maps.transpose(1, 2).flatten(2)  # B R G·F
        features = features.unflatten(2, (goals, -1)).transpose(1, 2)  # B G R F
        summary = summary[:, None].expand(-1, goals, -1, -1)
        difference = summary - field.summary[:, :, None]
        distance = difference[..., :2].norm(dim=-1, keepdim=True)
        return self.head(torch.cat([features, summary, difference, distance], -1))
