"""One quadrant as context, the other three as targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks
from openjepa.masking.geometry import GridSize, block_indices


@dataclass(frozen=True)
class Quadrants:
    """A random quadrant is the context, the other three are the targets.

    Source: "rasterized" in the I-JEPA paper's Table 6.
    """

    grid: GridSize

    def __post_init__(self):
        if self.grid[0] % 2 or self.grid[1] % 2:
            raise UserError(
                "--masks.sampler quadrants requires an even number of rows and columns of tokens, "
                f"got {self.grid[0]}×{self.grid[1]}: try --masks.sampler multiblock"
            )

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Tensor | None, rng: CounterRNG, progress: float
    ) -> tuple[Masks]:
        half = self.grid[0] // 2, self.grid[1] // 2
        corner = torch.tensor([[0, 0], [0, half[1]], [half[0], 0], list(half)])
        quadrants = block_indices(corner[None], half, self.grid)[0]  # 4 T
        context = (rng.uniform("quadrant") * 4).long()
        targets = (context[:, None] + torch.arange(1, 4)) % 4
        return (Masks(quadrants[context], quadrants[targets]),)

    def shapes(self) -> list[tuple[int, int, int]]:
        quarter = self.grid[0] * self.grid[1] // 4
        return [(quarter, 3, quarter)]
