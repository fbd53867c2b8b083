"""Many rooms at once: in each, an agent must reach a goal in another room.

B tasks  R rows: as many for each task  C channels  Y X rows and columns of pixels
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.data.synthetic.geodesic import geodesic_distance
from openjepa.data.synthetic.room_layouts import WORLDS, Rooms
from openjepa.data.synthetic.rooms import (
    BORDER,
    MAX_STEP,
    draw_distractor,
    draw_positions,
    draw_rooms,
    move,
    read_pixels,
    render,
)

REACHED = 2.3  # pixels from the goal that count as success: 4.5 of 65 in eb_jepa's rooms

MAX_STEPS = 100

LAYOUTS_PER_TASK = 8  # drawn for a goal that some layouts have a wall at


class RoomTasks(NamedTuple):
    """Layouts that never occur in training; start and goal are in different rooms and not within REACHED."""

    rooms: Rooms
    start: Float[Tensor, "B 2"]
    goal: Float[Tensor, "B 2"]
    distractor: Float[Tensor, "B T 2"] | None = None  # where the second dot is at each time; the last one at the goal

    def select(self, rows: Tensor | slice) -> RoomTasks:
        """Return some of the tasks."""
        second = None if self.distractor is None else self.distractor[rows]
        return RoomTasks(self.rooms.select(rows), self.start[rows], self.goal[rows], second)

    def goal_frames(self) -> UInt8[Tensor, "B C Y X"]:
        """Draw what is seen at the goal."""
        return self.frames_at(self.goal, time=-1)

    def frames_at(self, position: Float[Tensor, "R 2"], time: int = 0) -> UInt8[Tensor, "R C Y X"]:
        """Draw the first dot at one or more positions for each task, and the second where it is at some time."""
        each = len(position) // len(self.goal)
        second = None if self.distractor is None else self.distractor[:, time].repeat_interleave(each, 0)
        return render(self.rooms.wall.repeat_interleave(each, 0), position, second)


def draw_tasks(world: str, count: int, seed: int) -> RoomTasks:
    """Draw tasks, a function of the seed alone; those that begin solved are left out."""
    indices = np.arange(2 * count)
    rng = CounterRNG.of(seed, 0, indices)
    rooms = draw_rooms(world, rng, held_out=True)
    start = draw_positions(rooms, rng, "start")
    goal = draw_positions(rooms, rng, "goal", start)
    unsolved = ((goal - start).norm(dim=-1) > REACHED).nonzero()[:count, 0]
    return RoomTasks(rooms, start, goal, draw_distractor(world, rooms, rng, MAX_STEPS + 1)).select(unsolved)


def draw_tasks_to(world: str, goal: Sequence[float], count: int, seed: int) -> RoomTasks:
    """Draw tasks with one goal for all, x and y in pixels from the upper left, and start anywhere else.

    Layouts that have a wall there are left out, so that there may be fewer tasks than `count`.
    Raises UserError if the goal is outside the frame, or in a wall of every layout that was drawn.
    """
    side = WORLDS[world].side
    if len(goal) != 2 or not all(BORDER <= value <= side - BORDER for value in goal):
        raise UserError(
            f"--goal in {world} is x and y in pixels, each from {BORDER:g} to {side - BORDER:g}, "
            f"got {' '.join(f'{value:g}' for value in goal)}"
        )
    tasks = draw_tasks(world, LAYOUTS_PER_TASK * count, seed)
    tasks = tasks._replace(goal=torch.tensor(goal, dtype=torch.float32).expand(len(tasks.goal), 2))
    free = read_pixels(tasks.rooms.room, tasks.goal) >= 0
    chosen = (free & ~RoomEnv(tasks).reached()).nonzero()[:count, 0]
    if not len(chosen):
        raise UserError(f"all {len(free)} layouts of {world} have a wall at the --goal: give another position")
    return tasks.select(chosen)


def draw_distant_tasks(world: str, count: int, seed: int, steps: float, tolerance: float = 0.05) -> RoomTasks:
    """Draw tasks whose shortest way has so many steps, within a share of that; a function of the arguments alone.

    They begin in the first or the last room. Raises ValueError if most layouts have no way of this length.
    """
    indices = np.arange(3 * count)
    rng = CounterRNG.of(seed, 0, indices)
    rooms = draw_rooms(world, rng, held_out=True)
    ends = (rooms.room == 0) | (rooms.room == rooms.room.amax())
    start = draw_positions(rooms._replace(room=torch.where(ends, 0, -1)), rng, "start")
    distance = geodesic_distance(rooms.wall, start) / MAX_STEP
    fits = ((distance / steps - 1).abs() < tolerance) & (rooms.room >= 0)
    goal = draw_positions(rooms._replace(room=torch.where(fits, 0, -1)), rng, "goal")
    chosen = read_pixels(fits, goal).nonzero()[:count, 0]
    if len(chosen) < count:
        raise ValueError(f"only {len(chosen)} of {len(start)} layouts of {world} have ways of {steps:g} steps")
    return RoomTasks(rooms, start, goal, draw_distractor(world, rooms, rng, 4 * MAX_STEPS)).select(chosen)


class RoomEnv:
    """The tasks as one environment with a row for each of them. A task that has reached its goal stands still.

    With `view`, walls further than so many pixels to a side of the dot are not seen.
    """

    def __init__(self, tasks: RoomTasks, view: float | None = None):
        self.tasks, self.position, self.view, self.time = tasks, tasks.start, view, 0

    def observe(self) -> UInt8[Tensor, "B C Y X"]:
        """Draw what is seen now."""
        rooms = self.tasks.rooms._replace(wall=self.tasks.rooms.wall & self.visible())
        return self.tasks._replace(rooms=rooms).frames_at(self.position, self.time)

    def draw(self, position: Float[Tensor, "R 2"]) -> UInt8[Tensor, "R C Y X"]:
        """Draw what would be seen now at other positions, as many for each task."""
        return self.tasks.frames_at(position, self.time)

    def visible(self) -> Bool[Tensor, "B Y X"]:
        """Return which pixels are near enough to be seen."""
        if self.view is None:
            return torch.ones_like(self.tasks.rooms.wall)
        centers = torch.arange(self.tasks.rooms.wall.shape[-1]) + 0.5
        near = ((centers - self.position[..., None]).abs() <= self.view).unbind(1)
        return near[1][:, :, None] & near[0][:, None]

    def reached(self) -> Bool[Tensor, "B"]:
        """Return which tasks are at their goal."""
        return (self.position - self.tasks.goal).norm(dim=-1) < REACHED

    def step(self, action: Float[Tensor, "B 2"]) -> UInt8[Tensor, "B C Y X"]:
        """Act once in every task that is not at its goal; return what is seen then."""
        moved = move(self.tasks.rooms.wall, self.position, action)
        self.position = torch.where(self.reached()[:, None], self.position, moved)
        self.time += 1
        return self.observe()
