"""The official mask sampler, reproduced with its quirks.   B batch  N tokens  M blocks  T tokens per block"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks
from openjepa.masking.geometry import GridSize, block_indices, block_mask, grid_too_small, lerp

OFFICIAL_BATCH = 128  # samples per GPU in the official runs: contexts are cut to the shortest of such a group

OFFICIAL_TRIES = 20  # context positions drawn before the sampler lets the context overlap one more target


@dataclass(frozen=True)
class OfficialBlocks:
    """The official sampler with all its quirks, so that published runs can be reproduced.

    * One uniform value sets both scale and aspect ratio of a block, so large blocks are tall.
    * No block has the full height or width, and the last possible position is never drawn, so no block touches the
      last row or column.
    * Contexts keep their first tokens in raster order, as many as the shortest context of 128 consecutive samples of
      the global batch has.
    * A context of at most `min_keep` tokens is drawn again up to 20 times; then it may overlap the last target, after
      20 more times also the one before, and so on.

    Differs: random numbers come from CounterRNG, and a grid on which the official code never returns is a UserError.
    """

    grid: GridSize
    targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    min_keep: int = 10

    def __post_init__(self):
        sizes = self.target_sizes()
        smallest = min(h * w for h, w in sizes)
        smallest = min(smallest, *(math.prod(self.block_size(u, self.context_scale, (1.0, 1.0))) for u in (0.0, 1.0)))
        if min(self.grid) < 2 or smallest <= self.min_keep:
            reason = f"the official sampler requires blocks of more than {self.min_keep} tokens, got {smallest}"
            raise UserError(grid_too_small(self.grid, reason) + ", or --masks.sampler multiblock")

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Tensor | None, rng: CounterRNG, progress: float
    ) -> tuple[Masks]:
        first, stop = rng.offset, rng.offset + len(rng.index)
        start = first // OFFICIAL_BATCH * OFFICIAL_BATCH
        group = rng.global_slice(start, -(-stop // OFFICIAL_BATCH) * OFFICIAL_BATCH)  # whole groups of 128 samples
        target_scale, context_scale = rng.global_uniform("block sizes", 2).tolist()
        target_size = self.block_size(target_scale, self.target_scale, self.target_aspect)
        context_size = self.block_size(context_scale, self.context_scale, (1.0, 1.0))

        corner = self.block_corners(group.uniform("targets", self.targets, 2), target_size)
        free = self.free_tokens(group, corner, target_size, context_size)
        lengths = torch.cat([length.min().expand(len(length)) for length in free.sum(1).split(OFFICIAL_BATCH)])

        local = slice(first - start, stop - start)  # this rank's samples
        keep = lengths[local]
        longest = int(keep.max())
        # free tokens first, in raster order
        context = (~free[local]).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
        context_valid = torch.arange(longest) < keep[:, None]
        target = block_indices(corner[local], target_size, self.grid)
        return (Masks(context, target, None if context_valid.all() else context_valid),)

    def free_tokens(
        self, rng: CounterRNG, corner: Int[Tensor, "B M 2"], target_size: GridSize, context_size: GridSize
    ) -> Bool[Tensor, "B N"]:
        """Draw context blocks; return their tokens outside the targets, more than `min_keep` where possible."""
        in_target = block_mask(corner, target_size, self.grid)
        free = torch.zeros_like(in_target[:, 0])
        missing = torch.ones(len(free), dtype=torch.bool)
        for attempt in range(OFFICIAL_TRIES * (self.targets + 1)):
            forbidden = in_target[missing, : self.targets - attempt // OFFICIAL_TRIES].any(1)
            uniform = rng.select(missing.numpy()).uniform(f"context {attempt}", 1, 2)
            in_context = block_mask(self.block_corners(uniform, context_size), context_size, self.grid).any(1)
            free[missing] = in_context & ~forbidden
            missing = free.sum(1) <= self.min_keep
            if not missing.any():
                break
        return free

    def block_size(self, u: float, scale: tuple[float, float], aspect: tuple[float, float]) -> GridSize:
        """Return rows and columns of a block for one uniform value, at most the grid less one row and column."""
        area = int(self.grid[0] * self.grid[1] * lerp(*scale, u))
        ratio = lerp(*aspect, u)
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        return min(height, self.grid[0] - 1), min(width, self.grid[1] - 1)

    def block_corners(self, uniform: Float[Tensor, "B M 2"], size: GridSize) -> Int[Tensor, "B M 2"]:
        """Map uniforms in [0, 1) to (top, left), without the last row and column."""
        room = torch.tensor([self.grid[0] - size[0], self.grid[1] - size[1]])  # exclusive: the last is never drawn
        return (uniform * room).long()

    def target_sizes(self) -> list[GridSize]:
        """Return every size that a target block can have."""
        return sorted(
            {self.block_size(float(u), self.target_scale, self.target_aspect) for u in np.linspace(0, 1, 10_001)}
        )

    def shapes(self) -> list[tuple[int, int, int]]:
        largest = (self.grid[0] - 1) * (self.grid[1] - 1)
        tokens = sorted({h * w for h, w in self.target_sizes()})
        return [(context, self.targets, count) for count in tokens for context in range(self.min_keep + 1, largest + 1)]
