"""How well a critic knows the shortest ways, in layouts that it never saw.   B rooms  R states of each"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.data.synthetic.geodesic import distance_at, geodesic_distance
from openjepa.data.synthetic.rooms import MAX_STEP, draw_distractor, draw_positions, draw_rooms
from openjepa.methods.critic import ValuedWorld
from openjepa.planning.costs import critic_value
from openjepa.planning.diagnosis import encode
from openjepa.planning.envs.rooms import RoomTasks

ROOMS, STATES = 40, 60


class ValueQuality(NamedTuple):
    """Values beside the steps of the shortest way."""

    rank_correlation: float  # Spearman's, of the states of a goal, the mean over goals
    error: float  # mean absolute, in steps
    bias: float  # mean, in steps


@torch.no_grad()
def measure_values(world: ValuedWorld, modality: Any, name: str) -> ValueQuality:
    """Compare the values of random states of held-out layouts, for random goals, with the shortest ways."""
    rooms = draw_rooms(name, CounterRNG.of(3, 0, np.arange(ROOMS)), held_out=True)
    goal = draw_positions(rooms, CounterRNG.of(4, 0, np.arange(ROOMS)), "goal")
    states = [draw_positions(rooms, CounterRNG.of(50 + each, 0, np.arange(ROOMS)), "state") for each in range(STATES)]
    positions = torch.stack(states, 1).flatten(0, 1)
    second = draw_distractor(name, rooms, CounterRNG.of(4, 0, np.arange(ROOMS)), 1)
    tasks = RoomTasks(rooms, goal, goal, second)
    cost = critic_value(world, encode(world, modality, tasks.goal_frames()))
    values = cost(encode(world, modality, tasks.frames_at(positions)))
    distance = geodesic_distance(rooms.wall, goal).repeat_interleave(STATES, 0)
    truth = (distance_at(distance, positions) / MAX_STEP).unflatten(0, (ROOMS, STATES))
    error = values - truth
    rank = spearman(values, truth).mean().item()
    return ValueQuality(rank, error.abs().mean().item(), error.mean().item())


def spearman(x: Float[Tensor, "B R"], y: Float[Tensor, "B R"]) -> Float[Tensor, "B"]:
    """Return the correlation of the ranks of each row."""
    ranks = [each.argsort(1).argsort(1).double() for each in (x, y)]
    a, b = (each - each.mean(1, keepdim=True) for each in ranks)
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()
