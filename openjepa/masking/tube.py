"""The multi-block tubes of V-JEPA.   B batch  T time steps  S cells of a frame  M blocks  K tokens of a mask"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout, Masks, MaskShape
from openjepa.masking.geometry import GridSize, block_corners, block_mask, block_size, block_sizes, grid_too_small, lerp
from openjepa.masking.strategy import flag, require_aspect, suggest_default

MAX_REDRAWS = 16  # times that a sample whose blocks cover a whole frame draws new block positions


@dataclass(frozen=True)
class Tube:
    """Several masks of each sample, each of blocks of a frame that are hidden at every time step; the rest is context.

    Mask k has `blocks[k]` blocks that each cover about `scale[k]` of a frame: by default many small ones (short-range)
    and few large ones (long-range). All hidden tokens are targets, in one sequence. Block sizes are shared by the
    global batch; every sample draws its own positions, all positions equally likely. A sample without a visible cell
    draws again, up to 16 times; then one random cell is visible. An image has one time step.

    Source: Bardes et al., arXiv 2404.08471, section 3.2 and appendix (two masks, a mask token for each).
    Differs: blocks touch every edge of the frame, size and aspect ratio are independent, and contexts and targets are
    padded to the longest of a batch where the official code truncates them to the shortest.
    """

    blocks: tuple[int, ...] = (8, 2)  # blocks of each mask of a sample, one value per mask
    scale: tuple[float, ...] = (0.15, 0.7)  # area of a block of each mask, as a fraction of a frame
    aspect: tuple[float, float] = (0.75, 1.5)  # range of a block's height / width

    def __post_init__(self):
        if not self.blocks or len(self.blocks) != len(self.scale):
            raise UserError(
                f"{flag('blocks')} and {flag('scale')} need a number for each mask, got {len(self.blocks)} and "
                f"{len(self.scale)}: {suggest_default(self, 'blocks')} {suggest_default(self, 'scale')[4:]}"
            )
        if min(self.blocks) < 1:
            raise UserError(f"{flag('blocks')} must be >= 1, got {min(self.blocks)}: {suggest_default(self, 'blocks')}")
        if not all(0 < each < 1 for each in self.scale):
            raise UserError(
                f"{flag('scale')} must be between 0 and 1, got {' '.join(f'{each:g}' for each in self.scale)}: "
                f"{suggest_default(self, 'scale')}"
            )
        require_aspect(self, "aspect")

    @property
    def masks_per_sample(self) -> int:
        return len(self.blocks)

    def __call__(
        self,
        layout: Layout,
        pos: Float[Tensor, "B N P"] | None,
        valid: Bool[Tensor, "B N"] | None,
        rng: CounterRNG,
        progress: float,
    ) -> tuple[Masks, ...]:
        steps, frame = frame_size(layout, self)
        aspects = rng.global_uniform("block sizes", len(self.blocks)).tolist()
        masks = []
        for number, (blocks, scale, aspect) in enumerate(zip(self.blocks, self.scale, aspects, strict=True)):
            size = block_size(scale, lerp(*self.aspect, aspect), frame)
            masks.append(tube_masks(draw_hidden(blocks, size, frame, rng.fold_in(number)), steps))
        return tuple(masks)

    def shapes(self, layout: Layout) -> list[MaskShape]:
        """Return no shape, as they differ from sample to sample. Raises UserError if the grid is too small."""
        _, frame = frame_size(layout, self)
        for scale in self.scale:
            sizes = block_sizes((scale, scale), self.aspect, frame)
            if int(frame[0] * frame[1] * scale) < 1 or frame in sizes:
                raise UserError(grid_too_small(frame, f"a block of {scale:g} of a frame covers no cell, or every cell"))
        return []


def frame_size(layout: Layout, strategy: object) -> tuple[int, GridSize]:
    """Return the time steps, and rows and columns of a frame. Raises UserError if the layout is no grid of frames."""
    if layout.shape is None or len(layout.shape) not in (2, 3):
        kind = "a set of tokens" if layout.shape is None else f"a grid with {len(layout.shape)} axes"
        name = type(strategy).__name__.lower()
        raise UserError(f"--masks {name} requires video or images, got {kind}: try --masks random")
    *steps, rows, columns = layout.shape
    return (steps or [1])[0], (rows, columns)


def draw_hidden(blocks: int, size: GridSize, frame: GridSize, rng: CounterRNG) -> Bool[Tensor, "B S"]:
    """Return which cells of a frame the blocks of each sample cover; at least one cell stays visible."""
    hidden = hide_blocks(rng.uniform("positions", blocks, 2), size, frame)
    for attempt in range(1, MAX_REDRAWS + 1):
        full = hidden.all(1)
        if not full.any():
            return hidden
        hidden[full] = hide_blocks(rng.select(full.numpy()).uniform(f"positions {attempt}", blocks, 2), size, frame)
    full = hidden.all(1)
    visible = (rng.uniform("visible cell") * hidden.shape[1]).long()
    hidden[full] = hidden[full].scatter(1, visible[full][:, None], False)
    return hidden


def hide_blocks(uniform: Float[Tensor, "B M 2"], size: GridSize, frame: GridSize) -> Bool[Tensor, "B S"]:
    """Return which cells of a frame lie in any of the blocks at these positions."""
    return block_mask(block_corners(uniform, size, frame), size, frame).any(1)


def tube_masks(hidden: Bool[Tensor, "B S"], steps: int) -> Masks:
    """Hide the same cells of a frame at all times: the visible tokens are the context, the hidden ones the target."""
    hidden = hidden.repeat(1, steps)
    context, context_valid = pad_indices(~hidden)
    target, target_valid = pad_indices(hidden)
    return Masks(context, target[:, None], context_valid, None if target_valid is None else target_valid[:, None])


def pad_indices(chosen: Bool[Tensor, "B N"]) -> tuple[Int[Tensor, "B K"], Bool[Tensor, "B K"] | None]:
    """Return the indices of each sample's chosen tokens in raster order, padded to the longest of the batch.

    The second result is False on padding; None without padding.
    """
    counts = chosen.sum(1)
    longest = int(counts.max())
    index = (~chosen).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
    valid = torch.arange(longest) < counts[:, None]
    return index, None if valid.all() else valid
