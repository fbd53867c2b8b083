"""The multi-block mask sampler of I-JEPA.   B batch  N tokens  M blocks  T tokens per block  C context"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks
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

MAX_REDRAWS = 16  # times a sample that falls short of the context budget draws its places again


@dataclass(frozen=True)
class MultiBlock:
    """M target blocks and what a context block leaves outside them, thinned at random to a fixed number of tokens.

    Block sizes are shared by the global batch, places are each sample's own, every admissible place equally likely.
    The number of context tokens is `budget` of the grid, or less where the block sizes leave less; a sample with fewer
    free tokens draws its places again, up to 16 times, and is then padded (`context_valid`). Where none is free even then,
    all targets of the sample become its first, and what is outside that is free.

    Differs: the released sampler never uses the last row and column, ties aspect to scale, and cuts contexts from the
    bottom of the image to the shortest of the batch; this one does none of that. See OfficialBlocks.
    """

    grid: GridSize
    targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    context_fraction: float = 0.25

    def __post_init__(self):
        count = self.grid[0] * self.grid[1]
        smallest = int(count * self.target_scale[0])
        if smallest < 2:
            raise UserError(grid_too_small(self.grid, f"a target block would have {smallest} tokens"))
        if not self.target_aspect[0] <= self.target_aspect[1] or not self.target_scale[0] <= self.target_scale[1]:
            raise UserError("mask ranges go from low to high: try --masks.target-scale 0.15 0.2")
        for context, blocks, tokens in self.shapes():
            area = min(self.context_sizes())
            if context < 1 or area * (1 - tokens / count) ** blocks < min(context, count - blocks * tokens) / 2:
                raise UserError(
                    f"{blocks} target blocks of {tokens} tokens leave too little of a {self.grid[0]}×{self.grid[1]} grid "
                    f"to show {context}: try --masks.context-fraction {self.context_fraction / 2:g} or fewer --masks.targets"
                )

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Tensor | None, draws: CounterRNG, progress: float
    ) -> tuple[Masks]:
        scale, aspect, context_scale = draws.global_uniform("block sizes", 3).tolist()
        target = block_size(lerp(*self.target_scale, scale), lerp(*self.target_aspect, aspect), self.grid)
        block = block_size(lerp(*self.context_scale, context_scale), 1.0, self.grid)
        keep = self.context_size(target, block)

        asked, free = self.place(draws, target, block, 0)
        for attempt in range(1, MAX_REDRAWS + 1):
            short = free.sum(1) < keep
            if not short.any():
                break
            asked[short], free[short] = self.place(draws.select(short.numpy()), target, block, attempt)

        if (none := ~free.any(1)).any():
            asked[none] = asked[none][:, :1].expand_as(asked[none])
            free[none] = True
            free = free.scatter(1, asked.flatten(1), False)

        context, shown = subsample(free, keep, draws.uniform("thin", free.shape[1]))
        return (Masks(context, asked, None if shown.all() else shown),)

    def place(
        self, draws: CounterRNG, target: GridSize, block: GridSize, attempt: int
    ) -> tuple[Int[Tensor, "B M T"], Bool[Tensor, "B N"]]:
        """Target blocks, and the tokens of the context block outside them."""
        where = draws.uniform(f"places {attempt}", self.targets + 1, 2)
        asked = block_corners(where[:, :-1], target, self.grid)
        context = block_corners(where[:, -1:], block, self.grid)
        free = block_mask(context, block, self.grid).any(1) & ~block_mask(asked, target, self.grid).any(1)
        return block_indices(asked, target, self.grid), free

    def context_size(self, target: GridSize, block: GridSize) -> int:
        """C: a function of the block sizes alone."""
        count, size = self.grid[0] * self.grid[1], target[0] * target[1]
        return min(round(self.context_fraction * count), block[0] * block[1], count - size)

    def shapes(self) -> list[tuple[int, int, int]]:
        blocks = block_sizes(self.context_scale, (1.0, 1.0), self.grid)
        targets = block_sizes(self.target_scale, self.target_aspect, self.grid)
        return sorted({(self.context_size(t, b), self.targets, t[0] * t[1]) for t in targets for b in blocks})

    def context_sizes(self) -> list[int]:
        return [h * w for h, w in block_sizes(self.context_scale, (1.0, 1.0), self.grid)]


def subsample(
    free: Bool[Tensor, "B N"], keep: int, uniform: Float[Tensor, "B N"]
) -> tuple[Int[Tensor, "B C"], Bool[Tensor, "B C"]]:
    """`keep` of the free tokens, all subsets equally likely, in raster order; False marks what had to be filled up."""
    score = torch.where(free, uniform, 2.0)
    index = score.argsort(dim=1)[:, :keep].sort(dim=1).values
    return index, free.gather(1, index)
