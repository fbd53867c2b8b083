"""Options of the mask samplers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from openjepa.core.errors import UserError
from openjepa.core.protocols import Masker
from openjepa.masking.geometry import MAX_ASPECT, GridSize
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.official import OfficialBlocks
from openjepa.masking.quadrants import Quadrants
from openjepa.masking.random import RandomMask
from openjepa.masking.repeat import RepeatMasker


@dataclass(frozen=True)
class Masking:
    """Options of the mask samplers; `build` makes the one that `sampler` names."""

    sampler: Literal["multiblock", "official", "quadrants", "block", "random"] = "multiblock"
    targets: int = 4  # M, target blocks a sample
    target_scale: tuple[float, float] = (0.15, 0.2)  # share of the grid
    target_aspect: tuple[float, float] = (0.75, 1.5)  # rows / columns
    context_scale: tuple[float, float] = (0.85, 1.0)
    context_fraction: float = 0.25  # share of the grid shown to the context encoder (sampler "multiblock")
    min_keep: int = 10  # the released sampler's floor for blocks and contexts (sampler "official")
    mask_ratio: float = 0.6  # share of the grid that is hidden (sampler "random")
    target_fraction: float = 1.0  # share of what is hidden that is asked for (sampler "random")
    masks_per_sample: int = 1  # masks a sample gets in a step: contexts that share one pass of the target encoder

    def __post_init__(self):
        for name in ("target_scale", "context_scale"):
            if not 0 < getattr(self, name)[0] <= getattr(self, name)[1] <= 1:
                raise UserError(
                    f"{name} {getattr(self, name)} is no range of shares, from low to high: {suggest_value(name)}"
                )
        for name in ("context_fraction", "mask_ratio"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"a share {getattr(self, name):g} of tokens is none: {suggest_value(name)}")
        low, high = self.target_aspect
        if not 1 / MAX_ASPECT <= low <= high <= MAX_ASPECT:
            raise UserError(
                f"target_aspect {low:g} to {high:g} does not go from low to high: {suggest_value('target_aspect')}"
            )
        if self.masks_per_sample < 1:
            raise UserError(
                f"{self.masks_per_sample} masks a sample leave nothing to learn from: try --masks.masks-per-sample 1"
            )
        if self.targets < 1 or self.min_keep < 0:
            raise UserError(
                "a mask wants one target and no fewer than no tokens: try --masks.targets 4 --masks.min-keep 10"
            )

    def build(self, grid: GridSize) -> Masker:
        """The sampler for a grid. Mistake if the grid cannot hold its blocks."""
        return (
            self.build_single(grid)
            if self.masks_per_sample == 1
            else RepeatMasker(self.build_single(grid), self.masks_per_sample)
        )

    def build_single(self, grid: GridSize) -> Masker:
        scales = self.target_scale, self.target_aspect, self.context_scale
        if self.sampler == "multiblock":
            return MultiBlock(grid, self.targets, *scales, self.context_fraction)
        if self.sampler == "official":
            return OfficialBlocks(grid, self.targets, *scales, self.min_keep)
        if self.sampler == "block":
            return MultiBlock(grid, 1, (0.6, 0.6), self.target_aspect, (1.0, 1.0), context_fraction=1.0)
        return (
            Quadrants(grid) if self.sampler == "quadrants" else RandomMask(grid, self.mask_ratio, self.target_fraction)
        )


def suggest_value(name: str) -> str:
    """What to type in place of a value that cannot be."""
    default = getattr(Masking, name)
    values = " ".join(f"{value:g}" for value in (default if isinstance(default, tuple) else (default,)))
    return f"try --masks.{name.replace('_', '-')} {values}"
