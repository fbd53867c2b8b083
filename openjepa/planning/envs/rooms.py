"""Many rooms at once: in each, an agent must reach a goal in another room.   B tasks  Y X rows and columns of pixels"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.data.synthetic.rooms import SIDE, Rooms, draw_positions, draw_rooms, move, render

REACHED = 2.3  # pixels from the goal that count as success: 4.5 of 65 in eb_jepa's rooms

MAX_STEPS = 100


class RoomTasks(NamedTuple):
    """Layouts that never occur in training; start and goal are in different rooms and not within REACHED."""

    rooms: Rooms
    start: Float[Tensor, "B 2"]
    goal: Float[Tensor, "B 2"]

    def select(self, rows: Tensor | slice) -> RoomTasks:
        """Return some of the tasks."""
        return RoomTasks(self.rooms.select(rows), self.start[rows], self.goal[rows])

    def goal_frames(self) -> UInt8[Tensor, "B 2 Y X"]:
        """Draw what is seen at the goal."""
        return render(self.rooms.wall, self.goal)


def draw_tasks(world: str, count: int, seed: int) -> RoomTasks:
    """Draw tasks, a function of the seed alone; those that begin solved are left out."""
    indices = np.arange(2 * count)
    rng = CounterRNG.of(seed, 0, indices)
    rooms = draw_rooms(world, rng, held_out=True)
    start = draw_positions(rooms, rng, "start")
    goal = draw_positions(rooms, rng, "goal", start)
    unsolved = ((goal - start).norm(dim=-1) > REACHED).nonzero()[:count, 0]
    return RoomTasks(rooms, start, goal).select(unsolved)


class RoomEnv:
    """The tasks as one environment with a row for each of them. A task that has reached its goal stands still.

    With `view`, walls further than so many pixels to a side of the dot are not seen.
    """

    def __init__(self, tasks: RoomTasks, view: float | None = None):
        self.tasks, self.position, self.view = tasks, tasks.start, view

    def observe(self) -> UInt8[Tensor, "B 2 Y X"]:
        """Draw what is seen now."""
        return render(self.tasks.rooms.wall & self.visible(), self.position)

    def visible(self) -> Bool[Tensor, "B Y X"]:
        """Return which pixels are near enough to be seen."""
        if self.view is None:
            return torch.ones_like(self.tasks.rooms.wall)
        centers = torch.arange(SIDE) + 0.5
        near = ((centers - self.position[..., None]).abs() <= self.view).unbind(1)
        return near[1][:, :, None] & near[0][:, None]

    def reached(self) -> Bool[Tensor, "B"]:
        """Return which tasks are at their goal."""
        return (self.position - self.tasks.goal).norm(dim=-1) < REACHED

    def step(self, action: Float[Tensor, "B 2"]) -> UInt8[Tensor, "B 2 Y X"]:
        """Act once in every task that is not at its goal; return what is seen then."""
        moved = move(self.tasks.rooms.wall, self.position, action)
        self.position = torch.where(self.reached()[:, None], self.position, moved)
        return self.observe()
