"""Settings of the mask samplers."""

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
    """Which tokens are context and which are targets. Settings of other samplers than the chosen one are ignored."""

    # multiblock: I-JEPA's, improved; official: as in the official code; random: as in MAE; quadrants, block: ablations
    sampler: Literal["multiblock", "official", "quadrants", "block", "random"] = "multiblock"
    targets: int = 4  # target blocks per sample (samplers multiblock and official)
    target_scale: tuple[float, float] = (0.15, 0.2)  # range of a target block's area, as a fraction of the grid
    target_aspect: tuple[float, float] = (0.75, 1.5)  # range of a target block's height / width
    # range of the context block's area before targets are cut out, as a fraction of the grid
    context_scale: tuple[float, float] = (0.85, 1.0)
    # tokens the context encoder sees, as a fraction of the grid, after the targets are cut out (sampler multiblock)
    context_fraction: float = 0.25
    min_keep: int = 10  # blocks and contexts must have more tokens than this (sampler official)
    mask_ratio: float = 0.6  # fraction of tokens that are masked (sampler random)
    # fraction of the masked tokens that are targets, chosen at random; the rest is neither seen nor predicted, which is
    # faster (sampler random)
    target_fraction: float = 1.0
    masks_per_sample: int = 1  # masks drawn per image in each step; one pass of the target encoder serves all of them

    def __post_init__(self):
        for name in ("target_scale", "context_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise UserError(
                    f"{flag(name)} must be LOW HIGH with 0 < low <= high <= 1, got {low:g} {high:g}: "
                    f"{suggest_value(name)}"
                )
        for name in ("context_fraction", "mask_ratio"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise UserError(f"{flag(name)} must be > 0 and <= 1, got {value:g}: {suggest_value(name)}")
        low, high = self.target_aspect
        if not 1 / MAX_ASPECT <= low <= high <= MAX_ASPECT:
            raise UserError(
                f"{flag('target_aspect')} must be LOW HIGH with {1 / MAX_ASPECT:g} <= low <= high <= {MAX_ASPECT:g}, "
                f"got {low:g} {high:g}: {suggest_value('target_aspect')}"
            )
        for name, minimum in (("masks_per_sample", 1), ("targets", 1), ("min_keep", 0)):
            value = getattr(self, name)
            if value < minimum:
                raise UserError(f"{flag(name)} must be >= {minimum}, got {value}: {suggest_value(name)}")

    def build(self, grid: GridSize) -> Masker:
        """Build the sampler for a grid. Raises UserError if the grid is too small for its blocks."""
        single = self.build_single(grid)
        return single if self.masks_per_sample == 1 else RepeatMasker(single, self.masks_per_sample)

    def build_single(self, grid: GridSize) -> Masker:
        """Build the sampler that draws one mask per sample."""
        scales = self.target_scale, self.target_aspect, self.context_scale
        if self.sampler == "multiblock":
            return MultiBlock(grid, self.targets, *scales, self.context_fraction)
        if self.sampler == "official":
            return OfficialBlocks(grid, self.targets, *scales, self.min_keep)
        if self.sampler == "block":
            return MultiBlock(grid, 1, (0.6, 0.6), self.target_aspect, (1.0, 1.0), context_fraction=1.0)
        if self.sampler == "quadrants":
            return Quadrants(grid)
        return RandomMask(grid, self.mask_ratio, self.target_fraction)


def flag(name: str) -> str:
    """Return the command-line flag of a field of Masking."""
    return f"--masks.{name.replace('_', '-')}"


def suggest_value(name: str) -> str:
    """Suggest the default in place of an invalid value, as the user would type it."""
    default = getattr(Masking, name)
    values = " ".join(f"{value:g}" for value in (default if isinstance(default, tuple) else (default,)))
    return f"try {flag(name)} {values}"
