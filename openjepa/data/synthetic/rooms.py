"""Rooms with walls and doors, seen from above: actions push a dot, walls stop it.

B rooms  T steps  Y X rows and columns of pixels.  Lengths are in pixels; positions are (x, y) from the left upper
corner of the frame, so that pixel (row, column) reaches from (column, row) to (column + 1, row + 1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from openjepa.core.rng import CounterRNG, random_words

SIDE = 33  # of the frame

WALL, DOOR = 2, 5  # thickness of a wall, width of a door

FIRST, COLUMNS = 8, 16  # the wall's first column: 8 to 23; in four rooms also the other wall's first row

DOOR_ROWS = 25  # of two rooms: the door's first row is 2 to 26

MAX_STEP = 1.5  # a longer action is shortened

SUBSTEPS = 3  # of a step in the simulation: at most half a pixel each

BORDER = 1.0  # the dot's center stays so far from the edge of the frame

DOT = 1.2  # standard deviation of the Gaussian that is drawn for the dot

CANDIDATES = 128  # layouts that are drawn for each room, to choose one for training or for tests: one always fits

HELD_OUT = 5  # one of five layouts is for tests alone

WORLDS = ("two-rooms", "four-rooms")


class Rooms(NamedTuple):
    """Which pixels are walls, and which belong to which room."""

    number: Int[Tensor, "B"]  # of the layout: rooms with equal numbers have equal walls and doors
    wall: Bool[Tensor, "B Y X"]
    room: Int[Tensor, "B Y X"]  # 0, 1 … from left to right, then down; -1 for walls and doors

    def select(self, rows: Tensor | slice) -> Rooms:
        """Return some of the rooms."""
        return Rooms(*(each[rows] for each in self))


class Episodes(NamedTuple):
    """Where the dot is at each time, and the actions between."""

    rooms: Rooms
    position: Float[Tensor, "B T+1 2"]
    action: Float[Tensor, "B T 2"]


def draw_rooms(world: str, rng: CounterRNG, held_out: bool = False) -> Rooms:
    """Draw layouts, a function of (seed, number of the sample): those for training, or the fifth held out for tests."""
    count = {"two-rooms": 2, "four-rooms": 6}[world]
    values = rng.uniform("layout", CANDIDATES, count)
    layouts = two_room_layouts(values) if world == "two-rooms" else four_room_layouts(values)
    fits = is_held_out(layout_number(layouts)) == held_out
    chosen = layouts[torch.arange(len(layouts)), fits.to(torch.uint8).argmax(1)]
    return build_rooms(chosen)


def two_room_layouts(values: Float[Tensor, "B K 2"]) -> Int[Tensor, "B K 2"]:
    """Return the wall's first column and the door's first row."""
    column, door = values.unbind(-1)
    return torch.stack([FIRST + (column * COLUMNS).long(), 2 + (door * DOOR_ROWS).long()], -1)


def four_room_layouts(values: Float[Tensor, "B K 6"]) -> Int[Tensor, "B K 6"]:
    """Return the walls' first column and row, and the first pixel of the doors up, down, left and right of them."""
    column, row = (FIRST + (values[..., axis] * COLUMNS).long() for axis in (0, 1))
    last = SIDE - DOOR - 1
    ranges = ((1, row - DOOR - 1), (row + WALL + 1, last), (1, column - DOOR - 1), (column + WALL + 1, last))
    doors = [
        low + (value * (high - low + 1)).long()
        for (low, high), value in zip(ranges, values[..., 2:].unbind(-1), strict=True)
    ]
    return torch.stack([column, row, *doors], -1)


def layout_number(layouts: Int[Tensor, "*B P"]) -> Int[Tensor, "*B"]:
    """Return a number that differs between layouts."""
    number = layouts.new_zeros(layouts.shape[:-1])
    for value in layouts.unbind(-1):
        number = number * SIDE + value
    return number


def is_held_out(number: Int[Tensor, "*B"]) -> Bool[Tensor, "*B"]:
    """Return which layouts never occur in training: about a fifth, always the same."""
    words = random_words(0, "held out", number.flatten().numpy(), 1)[:, 0] % np.uint64(HELD_OUT)
    return torch.from_numpy(words == 0).view(number.shape)


def build_rooms(layouts: Int[Tensor, "B P"]) -> Rooms:
    """Return the pixels of walls and rooms: two rooms from (column, door), four from (column, row, four doors)."""
    rows, columns = (torch.arange(SIDE).view(shape) for shape in ((1, -1, 1), (1, 1, -1)))
    first, *rest = (value[:, None, None] for value in layouts.unbind(-1))
    upright, right = within(columns, first, WALL), (columns >= first).long()
    if len(rest) == 1:
        (door,) = rest
        line, open_, room = upright, upright & within(rows, door, DOOR), right.expand(-1, SIDE, -1)
    else:
        row, up, down, west, east = rest
        level, below = within(rows, row, WALL), (rows >= row).long()
        line = upright | level
        open_ = upright & (within(rows, up, DOOR) | within(rows, down, DOOR))
        open_ = open_ | level & (within(columns, west, DOOR) | within(columns, east, DOOR))
        room = right + 2 * below
    line = line.expand(-1, SIDE, -1)
    return Rooms(layout_number(layouts), line & ~open_, room.masked_fill(line, -1))


def within(pixel: Int[Tensor, "1 Y X"], first: Int[Tensor, "B 1 1"], width: int) -> Bool[Tensor, "B Y X"]:
    return (pixel >= first) & (pixel < first + width)


def draw_positions(rooms: Rooms, rng: CounterRNG, name: str, other_than: Tensor | None = None) -> Float[Tensor, "B 2"]:
    """Draw a position in a room, outside doors; with positions in `other_than`, in another room than theirs."""
    free = rooms.room >= 0
    edge = int(BORDER)
    inside = torch.zeros(SIDE, dtype=torch.bool)
    inside[edge : SIDE - edge] = True
    free = free & inside & inside[:, None]
    if other_than is not None:
        occupied = read_pixels(rooms.room, other_than)[:, None, None]
        free = free & (rooms.room != occupied)
    score = rng.uniform(name, SIDE * SIDE).masked_fill(~free.flatten(1), -1.0)
    pixel = score.argmax(1)
    corner = torch.stack([pixel % SIDE, pixel // SIDE], -1)
    return corner + rng.uniform(f"{name} in its pixel", 2)


def read_pixels(values: Tensor, position: Float[Tensor, "B 2"]) -> Tensor:
    """Return the value of the pixel in which each position is."""
    column, row = position.long().clamp(0, SIDE - 1).unbind(-1)
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
            moved = moved.clamp(BORDER, SIDE - BORDER)
            position = torch.where(read_pixels(wall, moved)[:, None], position, moved)
    return position


def shorten(action: Float[Tensor, "*B 2"]) -> Float[Tensor, "*B 2"]:
    """Return the action, at most MAX_STEP long."""
    return action * (MAX_STEP / action.norm(dim=-1, keepdim=True).clamp(min=MAX_STEP))


def draw_actions(rng: CounterRNG, steps: int) -> Float[Tensor, "B T 2"]:
    """Draw the actions of a walk: pushes in one direction for some steps, then in another, full or of any length."""
    begins = rng.uniform("whether a push begins", steps) < 1 / 5
    begins[:, 0] = True
    push = begins.cumsum(1) - 1  # number of the push at each step
    heading = 2 * torch.pi * rng.uniform("heading", steps).gather(1, push)
    length = rng.uniform("length", steps).gather(1, push)
    length = MAX_STEP * torch.where(rng.uniform("whether full", steps).gather(1, push) < 0.5, 1.0, length)
    return length[..., None] * torch.stack([heading.cos(), heading.sin()], -1)


def draw_episodes(world: str, rng: CounterRNG, steps: int, held_out: bool = False, restart: int = 0) -> Episodes:
    """Draw rooms, and a walk in each of them from a random position; with `restart`, from a new one after that many."""
    rooms, action = draw_rooms(world, rng, held_out), draw_actions(rng, steps)
    path = [draw_positions(rooms, rng, "start")]
    for step in range(1, steps + 1):
        if restart and step % restart == 0:
            path.append(draw_positions(rooms, rng, f"start after {step} steps"))
        else:
            path.append(move(rooms.wall, path[-1], action[:, step - 1]))
    return Episodes(rooms, torch.stack(path, 1), action)


def render(wall: Bool[Tensor, "B Y X"], position: Float[Tensor, "B *T 2"]) -> UInt8[Tensor, "B *T 2 Y X"]:
    """Draw frames of two channels: the dot, a Gaussian, and the walls."""
    centers = torch.arange(SIDE) + 0.5
    x, y = ((-(centers - position[..., axis, None]).square() / (2 * DOT**2)).exp() for axis in (0, 1))
    dot = (255 * y[..., :, None] * x[..., None, :]).round().to(torch.uint8)
    walls = wall.to(torch.uint8).mul(255).view(len(wall), *[1] * (dot.ndim - 3), SIDE, SIDE)
    return torch.stack([dot, walls.expand_as(dot)], -3)
