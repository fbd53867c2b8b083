"""Which tokens are shown and which are asked for.      B batch  N tokens  P coordinates  M blocks  T tokens per block  C context

All samplers work on a grid in raster order, whole batches at a time; an axis of one cell is a grid too, of one row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.protocols import Masker
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks

Size = tuple[int, int]  # rows, columns

REDRAWS = 16  # times a sample that falls short of the context budget draws its places again

RELEASED_BATCH = 128  # samples a GPU of the released runs held: contexts were cut to the shortest of them

RELEASED_TRIES = 20

WIDEST = 10.0  # times that a block may be as wide as high, or as high as wide


@dataclass(frozen=True)
class Masking:
    """Options of the mask samplers; `build` makes the one that `sampler` names."""

    sampler: Literal["blocks", "official", "rasterized", "block", "random"] = "blocks"
    targets: int = 4  # M, target blocks a sample
    target_scale: tuple[float, float] = (0.15, 0.2)  # share of the grid
    target_aspect: tuple[float, float] = (0.75, 1.5)  # rows / columns
    context_scale: tuple[float, float] = (0.85, 1.0)
    budget: float = 0.25  # share of the grid shown to the context encoder (sampler "blocks")
    min_keep: int = 10  # the released sampler's floor for blocks and contexts (sampler "official")
    hidden: float = 0.6  # share of the grid that is hidden (sampler "random")
    asked: float = 1.0  # share of what is hidden that is asked for (sampler "random")
    times: int = 1  # masks a sample gets in a step: contexts that share one pass of the target encoder

    def __post_init__(self):
        for name in ("target_scale", "context_scale"):
            if not 0 < getattr(self, name)[0] <= getattr(self, name)[1] <= 1:
                raise UserError(f"{name} {getattr(self, name)} is no range of shares, from low to high: {better(name)}")
        for name in ("budget", "hidden"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"a share {getattr(self, name):g} of tokens is none: {better(name)}")
        low, high = self.target_aspect
        if not 1 / WIDEST <= low <= high <= WIDEST:
            raise UserError(
                f"target_aspect {low:g} to {high:g} does not go from low to high: {better('target_aspect')}"
            )
        if self.times < 1:
            raise UserError(f"{self.times} masks a sample leave nothing to learn from: try --masks.times 1")
        if self.targets < 1 or self.min_keep < 0:
            raise UserError(
                "a mask wants one target and no fewer than no tokens: try --masks.targets 4 --masks.min-keep 10"
            )

    def build(self, grid: Size) -> Masker:
        """The sampler for a grid. Mistake if the grid cannot hold its blocks."""
        return self.one(grid) if self.times == 1 else Several(self.one(grid), self.times)

    def one(self, grid: Size) -> Masker:
        scales = self.target_scale, self.target_aspect, self.context_scale
        if self.sampler == "blocks":
            return Blocks(grid, self.targets, *scales, self.budget)
        if self.sampler == "official":
            return OfficialBlocks(grid, self.targets, *scales, self.min_keep)
        if self.sampler == "block":
            return Blocks(grid, 1, (0.6, 0.6), self.target_aspect, (1.0, 1.0), budget=1.0)
        return Rasterized(grid) if self.sampler == "rasterized" else Random(grid, self.hidden, self.asked)


def better(name: str) -> str:
    """What to type in place of a value that cannot be."""
    default = getattr(Masking, name)
    values = " ".join(f"{value:g}" for value in (default if isinstance(default, tuple) else (default,)))
    return f"try --masks.{name.replace('_', '-')} {values}"


@dataclass(frozen=True)
class Blocks:
    """M target blocks and what a context block leaves outside them, thinned at random to a fixed number of tokens.

    Block sizes are shared by the global batch, places are each sample's own, every admissible place equally likely.
    The number of context tokens is `budget` of the grid, or less where the block sizes leave less; a sample with fewer
    free tokens draws its places again, up to 16 times, and is then padded (`context_valid`). Where none is free even then,
    all targets of the sample become its first, and what is outside that is free.

    Differs: the released sampler never uses the last row and column, ties aspect to scale, and cuts contexts from the
    bottom of the image to the shortest of the batch; this one does none of that. See OfficialBlocks.
    """

    grid: Size
    targets: int = 4
    target_scale: tuple[float, float] = (0.15, 0.2)
    target_aspect: tuple[float, float] = (0.75, 1.5)
    context_scale: tuple[float, float] = (0.85, 1.0)
    budget: float = 0.25

    def __post_init__(self):
        count = self.grid[0] * self.grid[1]
        smallest = int(count * self.target_scale[0])
        if smallest < 2:
            raise UserError(too_small(self.grid, f"a target block would have {smallest} tokens"))
        if not self.target_aspect[0] <= self.target_aspect[1] or not self.target_scale[0] <= self.target_scale[1]:
            raise UserError("mask ranges go from low to high: try --masks.target-scale 0.15 0.2")
        for context, blocks, tokens in self.shapes():
            area = min(self.context_sizes())
            if context < 1 or area * (1 - tokens / count) ** blocks < min(context, count - blocks * tokens) / 2:
                raise UserError(
                    f"{blocks} target blocks of {tokens} tokens leave too little of a {self.grid[0]}×{self.grid[1]} grid "
                    f"to show {context}: try --masks.budget {self.budget / 2:g} or fewer --masks.targets"
                )

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Tensor | None, draws: CounterRNG, progress: float
    ) -> tuple[Masks]:
        scale, aspect, context_scale = draws.shared("block sizes", 3).tolist()
        target = block_size(between(*self.target_scale, scale), between(*self.target_aspect, aspect), self.grid)
        block = block_size(between(*self.context_scale, context_scale), 1.0, self.grid)
        keep = self.kept(target, block)

        asked, free = self.place(draws, target, block, 0)
        for attempt in range(1, REDRAWS + 1):
            short = free.sum(1) < keep
            if not short.any():
                break
            asked[short], free[short] = self.place(draws.take(short.numpy()), target, block, attempt)

        if (none := ~free.any(1)).any():
            asked[none] = asked[none][:, :1].expand_as(asked[none])
            free[none] = True
            free = free.scatter(1, asked.flatten(1), False)

        context, shown = thin(free, keep, draws.uniform("thin", free.shape[1]))
        return (Masks(context, asked, None if shown.all() else shown),)

    def place(
        self, draws: CounterRNG, target: Size, block: Size, attempt: int
    ) -> tuple[Int[Tensor, "B M T"], Bool[Tensor, "B N"]]:
        """Target blocks, and the tokens of the context block outside them."""
        where = draws.uniform(f"places {attempt}", self.targets + 1, 2)
        asked = corners(where[:, :-1], target, self.grid)
        context = corners(where[:, -1:], block, self.grid)
        free = inside(context, block, self.grid).any(1) & ~inside(asked, target, self.grid).any(1)
        return block_index(asked, target, self.grid), free

    def kept(self, target: Size, block: Size) -> int:
        """C: a function of the block sizes alone."""
        count, size = self.grid[0] * self.grid[1], target[0] * target[1]
        return min(round(self.budget * count), block[0] * block[1], count - size)

    def shapes(self) -> list[tuple[int, int, int]]:
        blocks = block_sizes(self.context_scale, (1.0, 1.0), self.grid)
        targets = block_sizes(self.target_scale, self.target_aspect, self.grid)
        return sorted({(self.kept(t, b), self.targets, t[0] * t[1]) for t in targets for b in blocks})

    def context_sizes(self) -> list[int]:
        return [h * w for h, w in block_sizes(self.context_scale, (1.0, 1.0), self.grid)]


@dataclass(frozen=True)
class OfficialBlocks:
    """The released sampler's behaviour, quirk for quirk, so that published runs can be reproduced.

    One uniform drives a block's scale and its aspect, so large blocks are tall; no block has full height or width; the
    last admissible place is never drawn, so no block touches the last row or column; contexts keep their first tokens in
    raster order, as many as the shortest context of 128 consecutive samples of the global batch has; a context of at most
    `min_keep` tokens is drawn again 20 times, then the last target is allowed into it.

    Differs: random numbers come from Draws, and a grid on which the released code never returns is a Mistake.
    """

    grid: Size
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
            raise UserError(too_small(self.grid, reason) + ", or --masks.sampler blocks")

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Tensor | None, draws: CounterRNG, progress: float
    ) -> tuple[Masks]:
        first, stop = draws.first, draws.first + len(draws.numbers)
        start = first // RELEASED_BATCH * RELEASED_BATCH
        group = draws.between(start, -(-stop // RELEASED_BATCH) * RELEASED_BATCH)
        target_scale, context_scale = draws.shared("block sizes", 2).tolist()
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
        return (Masks(context, block_index(asked[mine], target, self.grid), None if shown.all() else shown),)

    def free(self, draws: CounterRNG, asked: Int[Tensor, "B M 2"], target: Size, block: Size) -> Bool[Tensor, "B N"]:
        """Context tokens, at least one more than `min_keep` of them where that can be had."""
        taken = inside(asked, target, self.grid)
        free = torch.zeros_like(taken[:, 0])
        missing = torch.ones(len(free), dtype=torch.bool)
        for attempt in range(RELEASED_TRIES * (self.targets + 1)):
            forbidden = taken[missing, : self.targets - attempt // RELEASED_TRIES].any(1)
            where = draws.take(missing.numpy()).uniform(f"context {attempt}", 1, 2)
            free[missing] = inside(self.corners(where, block), block, self.grid).any(1) & ~forbidden
            missing = free.sum(1) <= self.min_keep
            if not missing.any():
                break
        return free

    def size(self, u: float, scale: tuple[float, float], aspect: tuple[float, float]) -> Size:
        area = int(self.grid[0] * self.grid[1] * between(*scale, u))
        ratio = between(*aspect, u)
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        return min(height, self.grid[0] - 1), min(width, self.grid[1] - 1)

    def corners(self, where: Float[Tensor, "B M 2"], size: Size) -> Int[Tensor, "B M 2"]:
        room = torch.tensor([self.grid[0] - size[0], self.grid[1] - size[1]])  # exclusive: the last is never drawn
        return (where * room).long()

    def target_sizes(self) -> list[Size]:
        return sorted({self.size(float(u), self.target_scale, self.target_aspect) for u in np.linspace(0, 1, 10_001)})

    def shapes(self) -> list[tuple[int, int, int]]:
        most = (self.grid[0] - 1) * (self.grid[1] - 1)
        tokens = sorted({h * w for h, w in self.target_sizes()})
        return [(context, self.targets, count) for count in tokens for context in range(self.min_keep + 1, most + 1)]


@dataclass(frozen=True)
class Rasterized:
    """One quadrant shown, the other three asked for (the paper's Table 6)."""

    grid: Size

    def __post_init__(self):
        if self.grid[0] % 2 or self.grid[1] % 2:
            raise UserError(
                f"quadrants want an even grid, not {self.grid[0]}×{self.grid[1]}: try --masks.sampler blocks"
            )

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Tensor | None, draws: CounterRNG, progress: float
    ) -> tuple[Masks]:
        half = self.grid[0] // 2, self.grid[1] // 2
        corner = torch.tensor([[0, 0], [0, half[1]], [half[0], 0], list(half)])
        quadrants = block_index(corner[None], half, self.grid)[0]  # 4 T
        shown = (draws.uniform("quadrant") * 4).long()
        others = (shown[:, None] + torch.arange(1, 4)) % 4
        return (Masks(quadrants[shown], quadrants[others]),)

    def shapes(self) -> list[tuple[int, int, int]]:
        quarter = self.grid[0] * self.grid[1] // 4
        return [(quarter, 3, quarter)]


@dataclass(frozen=True)
class Random:
    """A random share of the tokens hidden, the rest shown (the paper's Table 6).

    All that is hidden is asked for, or a random part of it, which makes the predictor's sequences shorter.
    """

    grid: Size
    hidden: float = 0.6
    asked: float = 1.0

    def __post_init__(self):
        self.shapes()  # says at once if the grid is too small

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Tensor | None, draws: CounterRNG, progress: float
    ) -> tuple[Masks]:
        ((context, _, asked),) = self.shapes()
        shuffled = draws.uniform("order", self.grid[0] * self.grid[1]).argsort(dim=1)
        shown, hidden = shuffled[:, :context], shuffled[:, context : context + asked]
        return (Masks(shown.sort(dim=1).values, hidden.sort(dim=1).values[:, None]),)

    def shapes(self) -> list[tuple[int, int, int]]:
        count = self.grid[0] * self.grid[1]
        hidden = int(count * self.hidden)
        if not 0 < hidden < count:
            raise UserError(too_small(self.grid, f"{hidden} of {count} tokens would be hidden"))
        if not 0 < self.asked <= 1:
            raise UserError(f"a share {self.asked:g} of what is hidden cannot be asked for: try --masks.asked 0.5")
        return [(count - hidden, 1, max(1, round(hidden * self.asked)))]


@dataclass(frozen=True)
class Several:
    """Several masks of each sample, drawn by another sampler one after the other (data2vec 2.0, arXiv 2212.07525)."""

    masker: Masker
    times: int

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Bool[Tensor, "B N"] | None, draws: CounterRNG, progress: float
    ) -> tuple[Masks, ...]:
        turns = [self.masker(pos, valid, draws.again(turn), progress) for turn in range(self.times)]
        return tuple(mask for masks in turns for mask in masks)

    def shapes(self) -> list[tuple[int, int, int]]:
        return self.masker.shapes()


def between(low: float, high: float, u: float) -> float:
    return low + u * (high - low)


def block_size(scale: float, aspect: float, grid: Size) -> Size:
    """Rows and columns of a block of about `scale` of the grid, at most the grid. Exact in area on a grid of one row."""
    area = int(grid[0] * grid[1] * scale)
    height = min(max(round(math.sqrt(area * aspect)), 1), grid[0])
    return height, min(max(round(area / height), 1), grid[1])


@lru_cache
def block_sizes(scale: tuple[float, float], aspect: tuple[float, float], grid: Size) -> list[Size]:
    """Every size that `block_size` gives for a scale and an aspect in these ranges."""
    count = grid[0] * grid[1]
    steps = sorted({*np.linspace(*aspect, 257).tolist()})
    areas = range(int(count * scale[0]), int(count * scale[1]) + 1)
    return sorted({block_size((area + 0.5) / count, a, grid) for area in areas if area <= count for a in steps})


def corners(where: Float[Tensor, "B M 2"], size: Size, grid: Size) -> Int[Tensor, "B M 2"]:
    """Uniforms to (top, left), every admissible place equally likely, the last row and column included."""
    room = torch.tensor([grid[0] - size[0] + 1, grid[1] - size[1] + 1])
    return (where * room).long()


def inside(corner: Int[Tensor, "B M 2"], size: Size, grid: Size) -> Bool[Tensor, "B M N"]:
    """Which cells lie in each block."""
    row = torch.arange(grid[0]) - corner[..., 0, None]  # B M rows
    column = torch.arange(grid[1]) - corner[..., 1, None]
    rows, columns = (row >= 0) & (row < size[0]), (column >= 0) & (column < size[1])
    return (rows[..., :, None] & columns[..., None, :]).flatten(-2)


def block_index(corner: Int[Tensor, "B M 2"], size: Size, grid: Size) -> Int[Tensor, "B M T"]:
    """The cells of each block in raster order."""
    cell = (torch.arange(size[0])[:, None] * grid[1] + torch.arange(size[1])).flatten()
    return corner[..., 0, None] * grid[1] + corner[..., 1, None] + cell


def thin(
    free: Bool[Tensor, "B N"], keep: int, uniform: Float[Tensor, "B N"]
) -> tuple[Int[Tensor, "B C"], Bool[Tensor, "B C"]]:
    """`keep` of the free tokens, all subsets equally likely, in raster order; False marks what had to be filled up."""
    score = torch.where(free, uniform, 2.0)
    index = score.argsort(dim=1)[:, :keep].sort(dim=1).values
    return index, free.gather(1, index)


def too_small(grid: Size, reason: str) -> str:
    return f"a grid of {grid[0]}×{grid[1]} tokens is too small: {reason}; try a smaller --data.patch or a larger --data.size"
