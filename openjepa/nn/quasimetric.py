"""Values as a quasimetric: no way from a state to a goal is longer than one with a detour.

G goals  B tasks  R states  N cells  D width of a latent  S width of a summary  E width of an embedding
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.nn.locator import Location
from openjepa.nn.value_iteration import GoalField


class Quasimetric(nn.Module):
    """Embed a state and a goal in the layout that the goal's latent shows; return how far apart they are.

    d(s, g) = scale · (|a(s) - a(g)| + max_k relu(b_k(s) - b_k(g))), with e = (a, b) the embedding

    The first term is the same in both directions, the second is not. d(g, g) = 0, and in the same embedded layout
    d(s, g) <= d(s, t) + d(t, g).
    Source: metric residual networks (Liu et al., AAAI 2023, arXiv 2208.08133).
    """

    def __init__(self, dim: int, cells: tuple[int, int], summary: int, start: float, width: int = 64):
        super().__init__()
        self.cells = cells
        self.layout = nn.Sequential(
            nn.Conv2d(dim, 24, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(24 * cells[0] * cells[1], width)
        )
        self.embed = nn.Sequential(
            nn.Linear(summary + width, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 2 * width)
        )
        self.scale = nn.Parameter(torch.tensor(start))

    def field(self, goal: Float[Tensor, "R N D"], where: Location, batch: int) -> GoalField:
        """Return what `forward` reads about R goals, as many for each of a batch of tasks; `where` is the goals'."""
        layout = self.layout(goal.mT.unflatten(2, self.cells))
        embedded = self.embed(torch.cat([where.summary, layout], -1))
        return GoalField(layout[:, None].unflatten(0, (batch, -1)), embedded.unflatten(0, (batch, -1)))

    def forward(self, field: GoalField, states: Location) -> Float[Tensor, "B G R"]:
        """Return the steps from R states to G goals of each of B tasks; `states` has B · R rows."""
        batch, goals = field.summary.shape[:2]
        summary = states.summary.unflatten(0, (batch, 1, -1)).expand(-1, goals, -1, -1)
        layout = field.maps.expand(-1, -1, summary.shape[2], -1)
        embedded = self.embed(torch.cat([summary, layout], -1))
        both, one_way = (embedded - field.summary[:, :, None]).chunk(2, -1)
        return self.scale * (both.norm(dim=-1) + one_way.relu().amax(-1))
