"""Forbidden zones on the shortest ways of tasks.   B tasks  S sequences  T steps  K width of a summary"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.planning import baselines
from openjepa.planning.costs import StepCost, forbidden
from openjepa.planning.envs.rooms import REACHED, RoomEnv, RoomTasks
from openjepa.planning.episodes import run_episodes
from openjepa.planning.probes import Probe

RADIUS = 2.5  # pixels

PASSAGE = 2.0  # pixels that stay free between a zone and walls

SOFTNESS = 0.4  # pixels over which the cost of a zone falls outside of it

MARGIN = 0.6  # pixels by which the cost widens a zone: imagined positions have an error


class Zones(NamedTuple):
    """A disc for each task that is not to be entered; tasks without room for one have theirs far away."""

    center: Float[Tensor, "B 2"]
    exists: Bool[Tensor, "B"]

    def select(self, rows: slice) -> Zones:
        """Return the zones of some of the tasks."""
        return Zones(self.center[rows], self.exists[rows])

    def entered(self, path: Float[Tensor, "B T 2"]) -> Bool[Tensor, "B"]:
        """Return which paths were ever inside their zone."""
        return ((path - self.center[:, None]).norm(dim=-1) < RADIUS).any(1)

    def cost(self, position: Probe) -> StepCost:
        """Return the cost of being inside, at the positions that a probe reads from summaries."""

        def inside(summary: Float[Tensor, "B S K"]) -> Float[Tensor, "B S"]:
            distance = (position(summary)[..., :2] - self.center[:, None]).norm(dim=-1)
            return torch.sigmoid((RADIUS + MARGIN - distance) / SOFTNESS)

        return forbidden(inside)


def draw_zones(tasks: RoomTasks) -> Zones:
    """Put a zone on the shortest way of each task, where it leaves a passage to all walls and to start and goal."""
    env = RoomEnv(tasks)
    path = run_episodes(env, baselines.oracle(env)).path  # B T 2
    needed = RADIUS + torch.tensor([PASSAGE, REACHED, REACHED])
    clearances = (wall_distance(tasks, path), distance_to(path, tasks.start), distance_to(path, tasks.goal))
    spare = torch.stack([each - need for each, need in zip(clearances, needed, strict=True)]).amin(0)  # B T
    best = spare.argmax(1)
    rows = torch.arange(len(path))
    exists = spare[rows, best] > 0
    center = torch.where(exists[:, None], path[rows, best], torch.full((2,), -100.0))
    return Zones(center, exists)


def distance_to(path: Float[Tensor, "B T 2"], position: Float[Tensor, "B 2"]) -> Float[Tensor, "B T"]:
    return (path - position[:, None]).norm(dim=-1)


def wall_distance(tasks: RoomTasks, path: Float[Tensor, "B T 2"]) -> Float[Tensor, "B T"]:
    """Return the distance of positions to the center of the nearest pixel of a wall."""
    nearest = []
    for wall, positions in zip(tasks.rooms.wall, path, strict=True):
        row, column = wall.nonzero(as_tuple=True)
        nearest.append(torch.cdist(positions, torch.stack([column, row], 1) + 0.5).amin(1))
    return torch.stack(nearest)
