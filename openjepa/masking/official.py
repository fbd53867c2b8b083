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
from openjepa.core.types import Masks, MaskShape
from openjepa.masking.geometry import GridSize, block_indices, block_mask, grid_too_small, lerp
from openjepa.masking.strategy import GridStrategy, require_aspect, require_at_least, require_range

OFFICIAL_BATCH = 128  # samples per GPU in the official runs: contexts are cut to the shortest of such a group

OFFICIAL_TRIES = 20  # context positions drawn before the sampler lets the context overlap one more target


@dataclass(frozen=True)
class Official(GridStrategy):
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

    targets: int = 4  # target blocks per sample
    target_scale: tuple[float, float] = (0.15, 0.2)  # range of a target block's area, as a fraction of the grid
    target_aspect: tuple[float, float] = (0.75, 1.5)  # range of a target block's height / width
    # range of the context block's area before targets are cut out, as a fraction of the grid
    context_scale: tuple[float, float] = (0.85, 1.0)
    min_keep: int = 10  # blocks and contexts must have more tokens than this

    def __post_init__(self):
        super().__post_init__()
        require_range(self, "target_scale", "context_scale")
        require_aspect(self, "target_aspect")
        require_at_least(self, 1, "targets")
        require_at_least(self, 0, "min_keep")

    def check(self, grid: GridSize) -> None:
        sizes = self.target_sizes(grid)
        smallest = min(h * w for h, w in sizes)
        contexts = (math.prod(sized_block(u, self.context_scale, (1.0, 1.0), grid)) for u in (0.0, 1.0))
        smallest = min(smallest, *contexts)
        if min(grid) < 2 or smallest <= self.min_keep:
            reason = f"the official sampler requires blocks of more than {self.min_keep} tokens, got {smallest}"
            raise UserError(grid_too_small(grid, reason) + ", or --masks multiblock")

    def draw(self, grid: GridSize, rng: CounterRNG) -> Masks:
        first, stop = rng.offset, rng.offset + len(rng.index)
        start = first // OFFICIAL_BATCH * OFFICIAL_BATCH
        group = rng.global_slice(start, -(-stop // OFFICIAL_BATCH) * OFFICIAL_BATCH)  # whole groups of 128 samples
        target_scale, context_scale = rng.global_uniform("block sizes", 2).tolist()
        target_size = sized_block(target_scale, self.target_scale, self.target_aspect, grid)
        context_size = sized_block(context_scale, self.context_scale, (1.0, 1.0), grid)

        corner = placed_corners(group.uniform("targets", self.targets, 2), target_size, grid)
        free = self.free_tokens(grid, group, corner, target_size, context_size)
        lengths = torch.cat([length.min().expand(len(length)) for length in free.sum(1).split(OFFICIAL_BATCH)])

        local = slice(first - start, stop - start)  # this rank's samples
        keep = lengths[local]
        longest = int(keep.max())
        # free tokens first, in raster order
        context = (~free[local]).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
        context_valid = torch.arange(longest) < keep[:, None]
        target = block_indices(corner[local], target_size, grid)
        return Masks(context, target, None if context_valid.all() else context_valid)

    def free_tokens(
        self,
        grid: GridSize,
        rng: CounterRNG,
        corner: Int[Tensor, "B M 2"],
        target_size: GridSize,
        context_size: GridSize,
    ) -> Bool[Tensor, "B N"]:
        """Draw context blocks; return their tokens outside the targets, more than `min_keep` where possible."""
        in_target = block_mask(corner, target_size, grid)
        free = torch.zeros_like(in_target[:, 0])
        missing = torch.ones(len(free), dtype=torch.bool)
        for attempt in range(OFFICIAL_TRIES * (self.targets + 1)):
            forbidden = in_target[missing, : self.targets - attempt // OFFICIAL_TRIES].any(1)
            uniform = rng.select(missing.numpy()).uniform(f"context {attempt}", 1, 2)
            in_context = block_mask(placed_corners(uniform, context_size, grid), context_size, grid).any(1)
            free[missing] = in_context & ~forbidden
            missing = free.sum(1) <= self.min_keep
            if not missing.any():
                break
        return free

    def target_sizes(self, grid: GridSize) -> list[GridSize]:
        """Return every size that a target block can have."""
        scales = np.linspace(0, 1, 10_001).tolist()
        return sorted({sized_block(u, self.target_scale, self.target_aspect, grid) for u in scales})

    def grid_shapes(self, grid: GridSize) -> list[MaskShape]:
        largest = (grid[0] - 1) * (grid[1] - 1)
        tokens = sorted({h * w for h, w in self.target_sizes(grid)})
        return [(context, self.targets, count) for count in tokens for context in range(self.min_keep + 1, largest + 1)]


def sized_block(u: float, scale: tuple[float, float], aspect: tuple[float, float], grid: GridSize) -> GridSize:
    """Return rows and columns of a block for one uniform value, at most the grid less one row and column."""
    area = int(grid[0] * grid[1] * lerp(*scale, u))
    ratio = lerp(*aspect, u)
    height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    return min(height, grid[0] - 1), min(width, grid[1] - 1)


def placed_corners(uniform: Float[Tensor, "B M 2"], size: GridSize, grid: GridSize) -> Int[Tensor, "B M 2"]:
    """Map uniforms in [0, 1) to (top, left), without the last row and column."""
    room = torch.tensor([grid[0] - size[0], grid[1] - size[1]])  # exclusive: the last is never drawn
    return (uniform * room).long()
