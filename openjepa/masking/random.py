"""A random share of the tokens hidden."""

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
    """A random share of the tokens hidden, the rest shown (the paper's Table 6).

    All that is hidden is asked for, or a random part of it, which makes the predictor's sequences shorter.
    """

    grid: GridSize
    mask_ratio: float = 0.6
    target_fraction: float = 1.0

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
        hidden = int(count * self.mask_ratio)
        if not 0 < hidden < count:
            raise UserError(grid_too_small(self.grid, f"{hidden} of {count} tokens would be hidden"))
        if not 0 < self.target_fraction <= 1:
            raise UserError(
                f"a share {self.target_fraction:g} of what is hidden cannot be asked for: try --masks.target-fraction 0.5"
            )
        return [(count - hidden, 1, max(1, round(hidden * self.target_fraction)))]
