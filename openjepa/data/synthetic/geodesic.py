"""Shortest ways around walls, in pixels.   B rooms  M moves  Y X rows and columns"""

from __future__ import annotations

from math import gcd, hypot

import torch
from jaxtyping import Bool, Float
from torch import Tensor

REACH = 3  # pixels to each side: from a pixel there are moves in 32 directions, at most 1.3 % longer than straight ways

MOVES = [
    (x, y) for x in range(-REACH, REACH + 1) for y in range(-REACH, REACH + 1) if gcd(abs(x), abs(y)) == 1
]  # fmt: skip

CHECKS = 8  # positions between the ends of a move that must be free


def geodesic_distance(wall: Bool[Tensor, "B Y X"], goal: Float[Tensor, "B 2"]) -> Float[Tensor, "B Y X"]:
    """Return the length of the shortest way from the center of each pixel to the goal; infinite in walls.

    Moves go from center to center of pixels and never through a wall.
    """
    free = [clear_moves(wall, x, y) for x, y in MOVES]
    distance = start_distance(wall, goal)
    while True:
        before = distance
        for (x, y), clear in zip(MOVES, free, strict=True):
            behind = shift(distance, x, y, float("inf")) + hypot(x, y)
            distance = torch.where(clear, torch.minimum(distance, behind), distance)
        if torch.equal(before, distance):
            return distance


def start_distance(wall: Bool[Tensor, "B Y X"], goal: Float[Tensor, "B 2"]) -> Float[Tensor, "B Y X"]:
    """Return the distance of the free pixels next to the goal; infinite elsewhere."""
    rows, columns = (torch.arange(size) + 0.5 for size in wall.shape[1:])
    x, y = columns - goal[:, 0, None, None], rows[:, None] - goal[:, 1, None, None]
    near = (x.abs() <= 1) & (y.abs() <= 1) & ~wall
    return torch.hypot(*torch.broadcast_tensors(x, y)).masked_fill(~near, float("inf"))


def clear_moves(wall: Bool[Tensor, "B Y X"], x: int, y: int) -> Bool[Tensor, "B Y X"]:
    """Return from which pixels a move by (x, y) pixels stays in the frame and meets no wall."""
    clear = ~wall
    for part in range(1, CHECKS + 1):
        clear = clear & ~shift(wall, round(x * part / CHECKS), round(y * part / CHECKS), True)
    return clear


def shift(values: Tensor, x: int, y: int, fill: float | bool) -> Tensor:
    """Return for each pixel the value of the pixel that is (x, y) further; `fill` beyond the frame."""
    height, width = values.shape[1:]
    moved = torch.full_like(values, fill)
    rows, columns = (slice(max(0, -by), size - max(0, by)) for by, size in ((y, height), (x, width)))
    source = (slice(max(0, by), size - max(0, -by)) for by, size in ((y, height), (x, width)))
    moved[:, rows, columns] = values[:, *source]
    return moved


def distance_at(distance: Float[Tensor, "B Y X"], position: Float[Tensor, "B 2"]) -> Float[Tensor, "B"]:
    """Return the distance from a position: by the nearest of the four pixels around it."""
    low = (position - 0.5).floor().long()
    ways = []
    for right in (0, 1):
        for down in (0, 1):
            column, row = (
                (low[:, 0] + right).clamp(0, distance.shape[2] - 1),
                (low[:, 1] + down).clamp(0, distance.shape[1] - 1),
            )
            center = torch.stack([column, row], -1) + 0.5
            ways.append(distance[torch.arange(len(distance)), row, column] + (position - center).norm(dim=-1))
    return torch.stack(ways).amin(0)
