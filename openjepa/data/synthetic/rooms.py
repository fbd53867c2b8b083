"""Rooms with walls and doors, seen from above: actions push a dot, walls stop it.

B rooms  T steps  F = T + 1 times  C channels  Y X rows and columns of pixels.  Lengths are in pixels; positions are
(x, y) from the left upper corner of the frame, so that pixel (row, column) reaches from (column, row) to (column + 1,
row + 1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from openjepa.core.rng import CounterRNG, random_words
from openjepa.data.synthetic.room_layouts import WORLDS, Rooms, layout_number

MAX_STEP = 1.5  # a longer action is shortened

TURN = 0.2  # probability that a walk turns, at each step

SUBSTEPS = 3  # of a step in the simulation: at most half a pixel each

BORDER = 1.0  # the dot's center stays so far from the edge of the frame

DOT = 1.2  # standard deviation of the Gaussian that is drawn for the dot

CANDIDATES = 128  # layouts that are drawn for each room, to choose one for training or for tests: one always fits

HELD_OUT = 5  # one of five layouts is for tests alone


class Episodes(NamedTuple):
    """Where the dot is at each time, and the actions between."""

    rooms: Rooms
    position: Float[Tensor, "B T+1 2"]
    action: Float[Tensor, "B T 2"]
    distractor: Float[Tensor, "B F 2"] | None  # the position of a second dot that nobody controls

    def frames(self, stride: int = 1) -> UInt8[Tensor, "B F C Y X"]:
        """Draw what is seen at every time, or after every `stride` actions."""
        second = None if self.distractor is None else self.distractor[:, ::stride]
        return render(self.rooms.wall, self.position[:, ::stride], second)


def draw_rooms(world: str, rng: CounterRNG, held_out: bool = False) -> Rooms:
    """Draw layouts, a function of (seed, number of the sample): those for training, or the fifth held out for tests."""
    family = WORLDS[world]
    layouts = family.layouts(rng.uniform("layout", CANDIDATES, family.values))
    fits = is_held_out(layout_number(layouts)) == held_out
    chosen = layouts[torch.arange(len(layouts)), fits.to(torch.uint8).argmax(1)]
    return family.build(chosen)


def is_held_out(number: Int[Tensor, "*B"]) -> Bool[Tensor, "*B"]:
    """Return which layouts never occur in training: about a fifth, always the same."""
    words = random_words(0, "held out", number.flatten().numpy(), 1)[:, 0] % np.uint64(HELD_OUT)
    return torch.from_numpy(words == 0).view(number.shape)


def draw_positions(rooms: Rooms, rng: CounterRNG, name: str, other_than: Tensor | None = None) -> Float[Tensor, "B 2"]:
    """Draw a position in a room, outside doors; with positions in `other_than`, in another room than theirs."""
    free, side = rooms.room >= 0, rooms.wall.shape[-1]
    edge = int(BORDER)
    inside = torch.zeros(side, dtype=torch.bool)
    inside[edge : side - edge] = True
    free = free & inside & inside[:, None]
    if other_than is not None:
        occupied = read_pixels(rooms.room, other_than)[:, None, None]
        free = free & (rooms.room != occupied)
    score = rng.uniform(name, side * side).masked_fill(~free.flatten(1), -1.0)
    pixel = score.argmax(1)
    corner = torch.stack([pixel % side, pixel // side], -1)
    return corner + rng.uniform(f"{name} in its pixel", 2)


def read_pixels(values: Tensor, position: Float[Tensor, "B 2"]) -> Tensor:
    """Return the value of the pixel in which each position is."""
    column, row = position.long().clamp(0, values.shape[-1] - 1).unbind(-1)
    return values[torch.arange(len(values)), row, column]


def move(
    wall: Bool[Tensor, "B Y X"], position: Float[Tensor, "B 2"], action: Float[Tensor, "B 2"]
) -> Float[Tensor, "B 2"]:
    """Push each dot by its action; at a wall it slides along."""
    step = shorten(action) / SUBSTEPS
    for _ in range(SUBSTEPS):
        for axis in (0, 1):
            moved = position.clone()
            moved[:, axis] += step[:, axis]
            moved = moved.clamp(BORDER, wall.shape[-1] - BORDER)
            position = torch.where(read_pixels(wall, moved)[:, None], position, moved)
    return position


def shorten(action: Float[Tensor, "*B 2"]) -> Float[Tensor, "*B 2"]:
    """Return the action, at most MAX_STEP long."""
    return action * (MAX_STEP / action.norm(dim=-1, keepdim=True).clamp(min=MAX_STEP))


def draw_actions(rng: CounterRNG, steps: int, turn: float = TURN, whose: str = "") -> Float[Tensor, "B T 2"]:
    """Draw the actions of a walk: pushes in one direction for some steps, then in another, full or of any length.

    `turn` is the probability of another direction at each step.
    """
    begins = rng.uniform(f"{whose}whether a push begins", steps) < turn
    begins[:, 0] = True
    push = begins.cumsum(1) - 1  # number of the push at each step
    heading = 2 * torch.pi * rng.uniform(f"{whose}heading", steps).gather(1, push)
    length = rng.uniform(f"{whose}length", steps).gather(1, push)
    length = MAX_STEP * torch.where(rng.uniform(f"{whose}whether full", steps).gather(1, push) < 0.5, 1.0, length)
    return length[..., None] * torch.stack([heading.cos(), heading.sin()], -1)


def draw_episodes(
    world: str, rng: CounterRNG, steps: int, held_out: bool = False, restart: int = 0, turn: float = TURN
) -> Episodes:
    """Draw rooms, and a walk in each of them from a random position; with `restart`, from a new one after that many."""
    rooms, action = draw_rooms(world, rng, held_out), draw_actions(rng, steps, turn)
    path = [draw_positions(rooms, rng, "start")]
    for step in range(1, steps + 1):
        if restart and step % restart == 0:
            path.append(draw_positions(rooms, rng, f"start after {step} steps"))
        else:
            path.append(move(rooms.wall, path[-1], action[:, step - 1]))
    return Episodes(rooms, torch.stack(path, 1), action, draw_distractor(world, rooms, rng, steps))


def draw_distractor(world: str, rooms: Rooms, rng: CounterRNG, steps: int) -> Float[Tensor, "B F 2"] | None:
    """Draw the walk of the second dot, which passes through the first one; None in a world without it."""
    if not WORLDS[world].distractor:
        return None
    path = [draw_positions(rooms, rng, "distractor")]
    for action in draw_actions(rng, steps, whose="distractor's ").unbind(1):
        path.append(move(rooms.wall, path[-1], action))
    return torch.stack(path, 1)


def render(
    wall: Bool[Tensor, "B Y X"], position: Float[Tensor, "B *T 2"], distractor: Float[Tensor, "B *T 2"] | None = None
) -> UInt8[Tensor, "B *T C Y X"]:
    """Draw frames: the dot, a Gaussian, in one channel, the walls in another, and a second dot in a third.

    The second dot is as bright as the first. In the same channel, one frame could not tell which one obeys.
    """
    dot = draw_dot(position, wall.shape[-1])
    walls = wall.to(torch.uint8).mul(255).view(len(wall), *[1] * (dot.ndim - 3), *wall.shape[1:])
    channels = [dot, walls.expand_as(dot)]
    if distractor is not None:
        channels.append(draw_dot(distractor, wall.shape[-1]))
    return torch.stack(channels, -3)


def draw_dot(position: Float[Tensor, "*B 2"], side: int) -> UInt8[Tensor, "*B Y X"]:
    centers = torch.arange(side) + 0.5
    x, y = ((-(centers - position[..., axis, None]).square() / (2 * DOT**2)).exp() for axis in (0, 1))
    return (255 * y[..., :, None] * x[..., None, :]).round().to(torch.uint8)
