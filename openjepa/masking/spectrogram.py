"""Time–frequency masks: target blocks whose times or pitches are hidden from the context.

B batch  N tokens  M target blocks  T tokens per block
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.masking.geometry import GridSize, block_corners, block_indices, block_mask
from openjepa.masking.multiblock import MultiBlock


@dataclass(frozen=True)
class Spectrogram(MultiBlock):
    """Small target blocks; the context has nothing at the same times, or nothing at the same pitches, as a block.

    Neighbors in time and harmonics at the same time resemble a block, so that random blocks are easy to predict.
    For each block a coin decides whether its times or its pitches are hidden.

    Source: A-JEPA (arXiv 2311.15830): three blocks of 5 to 7.5 %, a context of 85 to 100 %.
    Differs: the paper does not give the shape of what is hidden; both at once leave nothing of a small grid.
    """

    targets: int = 3  # target blocks per sample
    target_scale: tuple[float, float] = (0.05, 0.075)  # range of a target block's area, as a fraction of the grid
    # what of a block the context lacks. time: all pitches at its times; frequency: all times at its pitches; either:
    # one of the two, by chance
    hidden: Literal["either", "time", "frequency"] = "either"

    def sample_blocks(
        self, grid: GridSize, rng: CounterRNG, target_size: GridSize, context_size: GridSize, attempt: int
    ) -> tuple[Int[Tensor, "B M T"], Bool[Tensor, "B N"]]:
        """Draw block positions; return target indices, and the context block's tokens that share nothing with them."""
        uniform = rng.uniform(f"places {attempt}", self.targets + 1, 2)
        corner = block_corners(uniform[:, :-1], target_size, grid)
        context_corner = block_corners(uniform[:, -1:], context_size, grid)
        free = block_mask(context_corner, context_size, grid).any(1)
        free &= ~self.hidden_tokens(corner, target_size, grid, rng, attempt).any(1)
        return block_indices(corner, target_size, grid), free

    def hidden_tokens(
        self, corner: Int[Tensor, "B M 2"], size: GridSize, grid: GridSize, rng: CounterRNG, attempt: int
    ) -> Bool[Tensor, "B M N"]:
        """Return which tokens each block hides: all in its columns (times), or all in its rows (pitches)."""
        top, left = (torch.zeros_like(corner[..., 0]) for _ in range(2))
        times = block_mask(torch.stack([top, corner[..., 1]], -1), (grid[0], size[1]), grid)
        pitches = block_mask(torch.stack([corner[..., 0], left], -1), (size[0], grid[1]), grid)
        if self.hidden != "either":
            return times if self.hidden == "time" else pitches
        return torch.where(rng.uniform(f"directions {attempt}", self.targets)[..., None] < 0.5, times, pitches)
