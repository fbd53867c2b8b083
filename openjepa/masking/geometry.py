"""Sizes, positions and cells of blocks on a grid.   B batch  N tokens  M blocks  T tokens per block"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

GridSize = tuple[int, int]  # rows, columns

MAX_ASPECT = 10.0  # largest height / width or width / height of a block


def lerp(low: float, high: float, u: float) -> float:
    """Interpolate linearly from `low` at u = 0 to `high` at u = 1."""
    return low + u * (high - low)


def block_size(scale: float, aspect: float, grid: GridSize) -> GridSize:
    """Return rows and columns of a block that covers about `scale` of the grid, clipped to the grid.

    On a grid with one row the area is exact.
    """
    area = int(grid[0] * grid[1] * scale)
    height = min(max(round(math.sqrt(area * aspect)), 1), grid[0])
    return height, min(max(round(area / height), 1), grid[1])


@lru_cache
def block_sizes(scale: tuple[float, float], aspect: tuple[float, float], grid: GridSize) -> list[GridSize]:
    """Return every size that `block_size` gives for scales and aspects in these ranges."""
    count = grid[0] * grid[1]
    steps = sorted({*np.linspace(*aspect, 257).tolist()})
    areas = range(int(count * scale[0]), int(count * scale[1]) + 1)
    return sorted({block_size((area + 0.5) / count, a, grid) for area in areas if area <= count for a in steps})


def block_corners(uniform: Float[Tensor, "B M 2"], size: GridSize, grid: GridSize) -> Int[Tensor, "B M 2"]:
    """Map uniforms in [0, 1) to the (top, left) corners of blocks.

    Every position inside the grid is equally likely, including those that touch the last row and column.
    """
    room = torch.tensor([grid[0] - size[0] + 1, grid[1] - size[1] + 1])
    return (uniform * room).long()


def block_mask(corner: Int[Tensor, "B M 2"], size: GridSize, grid: GridSize) -> Bool[Tensor, "B M N"]:
    """Return whether each cell of the grid lies in each block."""
    row = torch.arange(grid[0]) - corner[..., 0, None]  # B M rows
    column = torch.arange(grid[1]) - corner[..., 1, None]
    rows, columns = (row >= 0) & (row < size[0]), (column >= 0) & (column < size[1])
    return (rows[..., :, None] & columns[..., None, :]).flatten(-2)


def block_indices(corner: Int[Tensor, "B M 2"], size: GridSize, grid: GridSize) -> Int[Tensor, "B M T"]:
    """Return the indices of each block's cells in raster order."""
    cell = (torch.arange(size[0])[:, None] * grid[1] + torch.arange(size[1])).flatten()
    return corner[..., 0, None] * grid[1] + corner[..., 1, None] + cell


def grid_too_small(grid: GridSize, reason: str) -> str:
    """Return the message for a grid that is too small for a sampler."""
    return (
        f"a grid of {grid[0]}×{grid[1]} tokens is too small: {reason}; "
        "try a smaller --data.patch or a larger --data.size"
    )
