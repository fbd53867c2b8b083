"""Layouts of rooms: where walls and doors are.   B rooms  K candidates  Y X rows and columns of pixels"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SIDE = 33  # of the frame of two and four rooms

WALL, DOOR = 2, 5  # thickness of a wall, width of a door

FIRST, COLUMNS = 8, 16  # the wall's first column: 8 to 23; in four rooms also the other wall's first row

DOOR_ROWS = 25  # of two rooms: the door's first row is 2 to 26

WINDING_SIDE = 51  # of the frame of a winding corridor

WINDING_ROWS, ROWS = (10, 23, 36), 4  # the first row of its walls, at least; rows to choose from

GAPS = 7  # columns from an edge at which the gap of a wall can begin


class Rooms(NamedTuple):
    """Which pixels are walls, and which belong to which room."""

    number: Int[Tensor, "B"]  # of the layout: rooms with equal numbers have equal walls and doors
    wall: Bool[Tensor, "B Y X"]
    room: Int[Tensor, "B Y X"]  # 0, 1 … from left to right, then down; -1 for walls and doors

    def select(self, rows: Tensor | slice) -> Rooms:
        """Return some of the rooms."""
        return Rooms(*(each[rows] for each in self))


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


def winding_layouts(values: Float[Tensor, "B K 8"]) -> Int[Tensor, "B K 8"]:
    """Return how much lower than WINDING_ROWS three walls are, how far their gaps from an edge, and two mirrors."""
    return (values * values.new_tensor([ROWS] * 3 + [GAPS] * 3 + [2, 2])).long()


def build_winding(layouts: Int[Tensor, "B P"]) -> Rooms:
    """Return the pixels of a corridor that turns around the ends of three walls: the gaps change sides."""
    side = WINDING_SIDE
    rows, columns = (torch.arange(side).view(shape) for shape in ((1, -1, 1), (1, 1, -1)))
    values = [value[:, None, None] for value in layouts.unbind(-1)]
    wall = torch.zeros(len(layouts), side, side, dtype=torch.bool)
    room = torch.zeros(len(layouts), side, side, dtype=torch.long)
    line = wall
    for number, (first_row, lower, gap) in enumerate(zip(WINDING_ROWS, values[:3], values[3:6], strict=True)):
        row = first_row + lower
        level = within(rows, row, WALL).expand(-1, -1, side)
        first = gap + 1 if number % 2 else side - DOOR - 1 - gap
        line, wall = line | level, wall | level & ~within(columns, first, DOOR)
        room = room + (rows >= row)
    room = room.masked_fill(line, -1)
    for mirrored, change in zip(values[6:], (lambda x: x.flip(2), lambda x: x.mT), strict=True):
        wall, room = torch.where(mirrored == 1, change(wall), wall), torch.where(mirrored == 1, change(room), room)
    return Rooms(layout_number(layouts), wall, room)


class RoomWorld(NamedTuple):
    """A family of layouts, and what moves in them."""

    side: int  # of the frame
    values: int  # random numbers that a layout is made from
    layouts: Callable[[Float[Tensor, "B K V"]], Int[Tensor, "B K P"]]
    build: Callable[[Int[Tensor, "B P"]], Rooms]
    distractor: bool = False  # whether a second dot walks about, which nobody controls

    @property
    def channels(self) -> int:
        """Return the channels of a frame: the dot, the walls, and the second dot."""
        return 3 if self.distractor else 2


WORLDS = {
    "two-rooms": RoomWorld(SIDE, 2, two_room_layouts, build_rooms),
    "four-rooms": RoomWorld(SIDE, 6, four_room_layouts, build_rooms),
    "four-rooms-distractor": RoomWorld(SIDE, 6, four_room_layouts, build_rooms, distractor=True),
    "winding": RoomWorld(WINDING_SIDE, 8, winding_layouts, build_winding),
}
