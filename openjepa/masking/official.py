"""The released mask sampler, reproduced with its quirks.   B batch  N tokens  M blocks  T tokens per block  C context"""

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

RELEASED_BATCH = 128  # samples a GPU of the released runs held: contexts were cut to the shortest of them

RELEASED_TRIES = 20


@dataclass(frozen=True)
class OfficialBlocks:
    """The released sampler's behaviour, quirk for quirk, so that published runs can be reproduced.

    One uniform drives a block's scale and its aspect, so large blocks are tall; no block has full height or width; the
    last admissible place is never drawn, so no block touches the last row or column; contexts keep their first tokens in
    raster order, as many as the shortest context of 128 consecutive samples of the global batch has; a context of at most
    `min_keep` tokens is drawn again 20 times, then the last target is allowed into it.

    Differs: random numbers come from Draws, and a grid on which the released code never returns is a Mistake.
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
        smallest = min(smallest, *(math.prod(self.size(u, self.context_scale, (1.0, 1.0))) for u in (0.0, 1.0)))
        if min(self.grid) < 2 or smallest <= self.min_keep:
            reason = f"the released sampler wants blocks of more than {self.min_keep} tokens, here {smallest}"
            raise UserError(grid_too_small(self.grid, reason) + ", or --masks.sampler multiblock")

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Tensor | None, draws: CounterRNG, progress: float
    ) -> tuple[Masks]:
        first, stop = draws.offset, draws.offset + len(draws.index)
        start = first // RELEASED_BATCH * RELEASED_BATCH
        group = draws.global_slice(start, -(-stop // RELEASED_BATCH) * RELEASED_BATCH)
        target_scale, context_scale = draws.global_uniform("block sizes", 2).tolist()
        target = self.size(target_scale, self.target_scale, self.target_aspect)
        block = self.size(context_scale, self.context_scale, (1.0, 1.0))

        asked = self.corners(group.uniform("targets", self.targets, 2), target)
        free = self.free(group, asked, target, block)
        kept = torch.cat([length.min().expand(len(length)) for length in free.sum(1).split(RELEASED_BATCH)])

        mine = slice(first - start, stop - start)
        keep = kept[mine]
        longest = int(keep.max())
        # free ones first, raster order
        context = (~free[mine]).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
        shown = torch.arange(longest) < keep[:, None]
        return (Masks(context, block_indices(asked[mine], target, self.grid), None if shown.all() else shown),)

    def free(
        self, draws: CounterRNG, asked: Int[Tensor, "B M 2"], target: GridSize, block: GridSize
    ) -> Bool[Tensor, "B N"]:
        """Context tokens, at least one more than `min_keep` of them where that can be had."""
        taken = block_mask(asked, target, self.grid)
        free = torch.zeros_like(taken[:, 0])
        missing = torch.ones(len(free), dtype=torch.bool)
        for attempt in range(RELEASED_TRIES * (self.targets + 1)):
            forbidden = taken[missing, : self.targets - attempt // RELEASED_TRIES].any(1)
            where = draws.select(missing.numpy()).uniform(f"context {attempt}", 1, 2)
            free[missing] = block_mask(self.corners(where, block), block, self.grid).any(1) & ~forbidden
            missing = free.sum(1) <= self.min_keep
            if not missing.any():
                break
        return free

    def size(self, u: float, scale: tuple[float, float], aspect: tuple[float, float]) -> GridSize:
        area = int(self.grid[0] * self.grid[1] * lerp(*scale, u))
        ratio = lerp(*aspect, u)
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        return min(height, self.grid[0] - 1), min(width, self.grid[1] - 1)

    def corners(self, where: Float[Tensor, "B M 2"], size: GridSize) -> Int[Tensor, "B M 2"]:
        room = torch.tensor([self.grid[0] - size[0], self.grid[1] - size[1]])  # exclusive: the last is never drawn
        return (where * room).long()

    def target_sizes(self) -> list[GridSize]:
        return sorted({self.size(float(u), self.target_scale, self.target_aspect) for u in np.linspace(0, 1, 10_001)})

    def shapes(self) -> list[tuple[int, int, int]]:
        most = (self.grid[0] - 1) * (self.grid[1] - 1)
        tokens = sorted({h * w for h, w in self.target_sizes()})
        return [(context, self.targets, count) for count in tokens for context in range(self.min_keep + 1, most + 1)]
