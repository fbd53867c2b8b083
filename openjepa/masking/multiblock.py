"""The multi-block mask sampler of I-JEPA.   B batch  N tokens  M blocks  T tokens per block  C context"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks, MaskShape
from openjepa.masking.geometry import (
    GridSize,
    block_corners,
    block_indices,
    block_mask,
    block_size,
    block_sizes,
    grid_too_small,
    lerp,
)
from openjepa.masking.strategy import (
    GridStrategy,
    require_aspect,
    require_at_least,
    require_fraction,
    require_range,
)

MAX_REDRAWS = 16  # times that a sample with too few free tokens draws new block positions


@dataclass(frozen=True)
class MultiBlock(GridStrategy):
    """M target blocks, and a context block without their tokens, subsampled to a fixed number of tokens.

    Block sizes are shared by the global batch; every sample draws its own positions, all positions equally likely.
    A context has `context_fraction` of the grid's tokens, or less if the block sizes leave less. A sample with fewer
    free tokens (context block minus targets) draws its positions again, up to 16 times, and is then padded
    (`context_valid`). If no token is free even then, all targets of the sample become its first target, and every
    token outside that is free.

    Differs: the official sampler never uses the last row and column, ties the aspect ratio to the scale, and truncates
    contexts from the bottom of the image to the shortest context of the batch; this sampler does none of that. See
    masking/official.py.
    """

    targets: int = 4  # target blocks per sample
    target_scale: tuple[float, float] = (0.15, 0.2)  # range of a target block's area, as a fraction of the grid
    target_aspect: tuple[float, float] = (0.75, 1.5)  # range of a target block's height / width
    # range of the context block's area before targets are cut out, as a fraction of the grid
    context_scale: tuple[float, float] = (0.85, 1.0)
    # tokens the context encoder sees, as a fraction of the grid, after the targets are cut out
    context_fraction: float = 0.25

    def __post_init__(self):
        super().__post_init__()
        require_range(self, "target_scale", "context_scale")
        require_fraction(self, "context_fraction")
        require_aspect(self, "target_aspect")
        require_at_least(self, 1, "targets")

    def check(self, grid: GridSize) -> None:
        count = grid[0] * grid[1]
        smallest = int(count * self.target_scale[0])
        if smallest < 2:
            raise UserError(grid_too_small(grid, f"a target block would have {smallest} tokens"))
        for context, blocks, tokens in self.grid_shapes(grid):
            area = min(self.context_areas(grid))
            if context < 1 or area * (1 - tokens / count) ** blocks < min(context, count - blocks * tokens) / 2:
                raise UserError(
                    f"{blocks} target blocks of {tokens} tokens leave too little of a {grid[0]}×{grid[1]} "
                    f"grid for a context of {context}: try --masks.context-fraction {self.context_fraction / 2:g} "
                    "or fewer --masks.targets"
                )

    def draw(self, grid: GridSize, rng: CounterRNG) -> Masks:
        scale, aspect, context_scale = rng.global_uniform("block sizes", 3).tolist()
        target_size = block_size(lerp(*self.target_scale, scale), lerp(*self.target_aspect, aspect), grid)
        context_size = block_size(lerp(*self.context_scale, context_scale), 1.0, grid)
        keep = self.context_size(target_size, context_size, grid)

        target, free = self.sample_blocks(grid, rng, target_size, context_size, 0)
        for attempt in range(1, MAX_REDRAWS + 1):
            short = free.sum(1) < keep
            if not short.any():
                break
            redrawn = self.sample_blocks(grid, rng.select(short.numpy()), target_size, context_size, attempt)
            target[short], free[short] = redrawn

        empty = ~free.any(1)
        if empty.any():
            target[empty] = target[empty][:, :1].expand_as(target[empty])
            free[empty] = True
            free = free.scatter(1, target.flatten(1), False)

        context, context_valid = subsample(free, keep, rng.uniform("thin", free.shape[1]))
        return Masks(context, target, None if context_valid.all() else context_valid)

    def sample_blocks(
        self, grid: GridSize, rng: CounterRNG, target_size: GridSize, context_size: GridSize, attempt: int
    ) -> tuple[Int[Tensor, "B M T"], Bool[Tensor, "B N"]]:
        """Draw block positions; return target indices and the context block's tokens outside the targets."""
        uniform = rng.uniform(f"places {attempt}", self.targets + 1, 2)
        corner = block_corners(uniform[:, :-1], target_size, grid)
        context_corner = block_corners(uniform[:, -1:], context_size, grid)
        in_context = block_mask(context_corner, context_size, grid).any(1)
        free = in_context & ~block_mask(corner, target_size, grid).any(1)
        return block_indices(corner, target_size, grid), free

    def context_size(self, target: GridSize, block: GridSize, grid: GridSize) -> int:
        """Return C, the number of context tokens, from the sizes of target and context blocks alone."""
        count, size = grid[0] * grid[1], target[0] * target[1]
        return min(round(self.context_fraction * count), block[0] * block[1], count - size)

    def grid_shapes(self, grid: GridSize) -> list[MaskShape]:
        blocks = block_sizes(self.context_scale, (1.0, 1.0), grid)
        targets = block_sizes(self.target_scale, self.target_aspect, grid)
        return sorted({(self.context_size(t, b, grid), self.targets, t[0] * t[1]) for t in targets for b in blocks})

    def context_areas(self, grid: GridSize) -> list[int]:
        """Return every number of tokens that the context block can have."""
        return [h * w for h, w in block_sizes(self.context_scale, (1.0, 1.0), grid)]


def subsample(
    free: Bool[Tensor, "B N"], keep: int, uniform: Float[Tensor, "B N"]
) -> tuple[Int[Tensor, "B C"], Bool[Tensor, "B C"]]:
    """Choose `keep` free tokens per sample, every subset equally likely, in raster order.

    The second result is False where a sample had too few free tokens and another token fills the gap.
    """
    score = torch.where(free, uniform, 2.0)
    index = score.argsort(dim=1)[:, :keep].sort(dim=1).values
    return index, free.gather(1, index)
