"""One quadrant as context, the other three as targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks, MaskShape
from openjepa.masking.geometry import GridSize, block_indices
from openjepa.masking.strategy import GridStrategy


@dataclass(frozen=True)
class Quadrants(GridStrategy):
    """A random quadrant is the context, the other three are the targets.

    Source: "rasterized" in the I-JEPA paper's Table 6.
    """

    def check(self, grid: GridSize) -> None:
        if grid[0] % 2 or grid[1] % 2:
            raise UserError(
                "--masks quadrants requires an even number of rows and columns of tokens, "
                f"got {grid[0]}×{grid[1]}: try --masks multiblock"
            )

    def draw(self, grid: GridSize, rng: CounterRNG) -> Masks:
        half = grid[0] // 2, grid[1] // 2
        corner = torch.tensor([[0, 0], [0, half[1]], [half[0], 0], list(half)])
        quadrants = block_indices(corner[None], half, grid)[0]  # 4 T
        context = (rng.uniform("quadrant") * 4).long()
        targets = (context[:, None] + torch.arange(1, 4)) % 4
        return Masks(quadrants[context], quadrants[targets])

    def grid_shapes(self, grid: GridSize) -> list[MaskShape]:
        quarter = grid[0] * grid[1] // 4
        return [(quarter, 3, quarter)]
