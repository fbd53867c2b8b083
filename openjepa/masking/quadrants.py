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
    """One quadrant shown, the other three asked for (the paper's Table 6)."""

    grid: GridSize

    def __post_init__(self):
        if self.grid[0] % 2 or self.grid[1] % 2:
            raise UserError(
                f"quadrants want an even grid, not {self.grid[0]}×{self.grid[1]}: try --masks.sampler multiblock"
            )

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Tensor | None, draws: CounterRNG, progress: float
    ) -> tuple[Masks]:
        half = self.grid[0] // 2, self.grid[1] // 2
        corner = torch.tensor([[0, 0], [0, half[1]], [half[0], 0], list(half)])
        quadrants = block_indices(corner[None], half, self.grid)[0]  # 4 T
        shown = (draws.uniform("quadrant") * 4).long()
        others = (shown[:, None] + torch.arange(1, 4)) % 4
        return (Masks(quadrants[shown], quadrants[others]),)

    def shapes(self) -> list[tuple[int, int, int]]:
        quarter = self.grid[0] * self.grid[1] // 4
        return [(quarter, 3, quarter)]
