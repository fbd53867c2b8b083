"""One large target block: the ablation of the I-JEPA paper's Table 6."""

from __future__ import annotations

from dataclasses import dataclass

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks, MaskShape
from openjepa.masking.geometry import GridSize
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.strategy import GridStrategy, require_aspect


@dataclass(frozen=True)
class Block(GridStrategy):
    """One target block of 60 % of the grid; all other tokens are the context.

    Source: "block" in the I-JEPA paper's Table 6.
    """

    target_aspect: tuple[float, float] = (0.75, 1.5)  # range of the target block's height / width

    def __post_init__(self):
        super().__post_init__()
        require_aspect(self, "target_aspect")

    def check(self, grid: GridSize) -> None:
        self.sampler().check(grid)

    def draw(self, grid: GridSize, rng: CounterRNG) -> Masks:
        return self.sampler().draw(grid, rng)

    def grid_shapes(self, grid: GridSize) -> list[MaskShape]:
        return self.sampler().grid_shapes(grid)

    def sampler(self) -> MultiBlock:
        """Return the multi-block sampler with one target and a context of everything else."""
        return MultiBlock(1, (0.6, 0.6), self.target_aspect, (1.0, 1.0), context_fraction=1.0)
