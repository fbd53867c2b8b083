"""Hide whole columns of a grid, such as moments of a spectrogram: a mask strategy."""

from dataclasses import dataclass

import torch

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks, MaskShape
from openjepa.masking.geometry import GridSize
from openjepa.masking.strategy import GridStrategy, require_fraction


@dataclass(frozen=True)
class Stripes(GridStrategy):
    """Random columns are the target, the others the context."""

    mask_ratio: float = 0.5  # fraction of the columns that are hidden

    def __post_init__(self):
        super().__post_init__()
        require_fraction(self, "mask_ratio")

    def draw(self, grid: GridSize, rng: CounterRNG) -> Masks:
        """Draw other columns for every sample."""
        rows, columns = grid
        order = rng.uniform("columns", columns).argsort(dim=1)  # B columns
        cell = torch.arange(rows)[:, None] * columns + order[:, None]  # B rows columns
        hidden = self.hidden_columns(grid)
        return Masks(cell[..., hidden:].flatten(1), cell[..., :hidden].flatten(1)[:, None])

    def grid_shapes(self, grid: GridSize) -> list[MaskShape]:
        """Return context tokens, target blocks and tokens per block: the same for all samples."""
        rows, hidden = grid[0], self.hidden_columns(grid)
        return [(rows * (grid[1] - hidden), 1, rows * hidden)]

    def hidden_columns(self, grid: GridSize) -> int:
        """Return how many columns are hidden: at least one, never all."""
        return min(max(1, round(grid[1] * self.mask_ratio)), grid[1] - 1)
