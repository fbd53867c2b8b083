"""Ways to act without a world model, to compare with: nothing, random, straight, and the shortest way of an oracle.

B tasks  P directions
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.data.synthetic.geodesic import distance_at, geodesic_distance
from openjepa.data.synthetic.rooms import MAX_STEP, move
from openjepa.nn.directions import directions
from openjepa.planning.envs.rooms import RoomEnv
from openjepa.planning.episodes import Act

ORACLE_DIRECTIONS = 32


def nothing(env: RoomEnv) -> Act:
    """Return the way to act that never moves."""
    return lambda _: torch.zeros_like(env.position)


def random(env: RoomEnv, seed: int = 0) -> Act:
    """Return the way to act that pushes in a new random direction at each step."""
    generator = torch.Generator().manual_seed(seed)

    def act(_: Tensor) -> Float[Tensor, "B 2"]:
        angle = 2 * torch.pi * torch.rand(len(env.position), generator=generator)
        return MAX_STEP * torch.stack([angle.cos(), angle.sin()], -1)

    return act


def straight(env: RoomEnv) -> Act:
    """Return the way to act that knows both positions, and pushes straight to the goal."""
    return lambda _: env.tasks.goal - env.position


def oracle(env: RoomEnv) -> Act:
    """Return the way to act that knows walls and positions: the push whose end is nearest to the goal, around walls."""
    wall = env.tasks.rooms.wall
    distance = geodesic_distance(wall, env.tasks.goal)
    pushes = directions(ORACLE_DIRECTIONS, 2, MAX_STEP)

    def act(_: Tensor) -> Float[Tensor, "B 2"]:
        ends = [distance_at(distance, move(wall, env.position, push.expand_as(env.position))) for push in pushes]
        return pushes[torch.stack(ends, 1).argmin(1)]

    return act
