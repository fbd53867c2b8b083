"""Mask a random fraction of the tokens."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks
from openjepa.masking.geometry import GridSize, grid_too_small


@dataclass(frozen=True)
class RandomMask:
    """A random fraction of the tokens is masked, the rest is the context (the I-JEPA paper's Table 6).

    All masked tokens are targets, or a random fraction of them, which shortens the predictor's sequences.
    """

    grid: GridSize
    mask_ratio: float = 0.6
    target_fraction: float = 1.0

    def __post_init__(self):
        self.shapes()  # raises now if the grid is too small

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Tensor | None, rng: CounterRNG, progress: float
    ) -> tuple[Masks]:
        ((context_count, _, target_count),) = self.shapes()
        shuffled = rng.uniform("order", self.grid[0] * self.grid[1]).argsort(dim=1)
        context = shuffled[:, :context_count].sort(dim=1).values
        target = shuffled[:, context_count : context_count + target_count].sort(dim=1).values
        return (Masks(context, target[:, None]),)

    def shapes(self) -> list[tuple[int, int, int]]:
        count = self.grid[0] * self.grid[1]
        masked = int(count * self.mask_ratio)
        if not 0 < masked < count:
            raise UserError(grid_too_small(self.grid, f"{masked} of {count} tokens would be masked"))
        if not 0 < self.target_fraction <= 1:
            raise UserError(
                f"--masks.target-fraction must be > 0 and <= 1, got {self.target_fraction:g}: "
                "try --masks.target-fraction 0.5"
            )
        return [(count - masked, 1, max(1, round(masked * self.target_fraction)))]
