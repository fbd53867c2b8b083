"""Local windows: each mask sees and predicts a small square of the image.   B batch  C context  T target tokens"""

from __future__ import annotations

from dataclasses import dataclass, field

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks, MaskShape
from openjepa.masking.geometry import GridSize, block_corners, block_indices, grid_too_small
from openjepa.masking.strategy import GridStrategy, require_at_least, require_fraction


@dataclass(frozen=True)
class Windows(GridStrategy):
    """Each mask is a random window, of whose tokens a fraction is hidden and predicted; the rest is the context.

    Source: LoMaR (arXiv 2206.00790), as in SAR-JEPA: four windows of 7×7 tokens, 80 % of each hidden.
    """

    masks_per_sample: int = field(default=4, kw_only=True)  # windows of each sample
    size: int = 7  # rows and columns of a window; less on a smaller grid
    mask_ratio: float = 0.8  # fraction of a window's tokens that are hidden

    def __post_init__(self):
        super().__post_init__()
        require_at_least(self, 2, "size")
        require_fraction(self, "mask_ratio")

    def check(self, grid: GridSize) -> None:
        """Raise UserError unless a window has a visible and a hidden token."""
        context, _, target = self.grid_shapes(grid)[0]
        if not context or not target:
            raise UserError(grid_too_small(grid, f"a window would have {context} visible and {target} hidden tokens"))

    def draw(self, grid: GridSize, rng: CounterRNG) -> Masks:
        window = self.window(grid)
        cells = block_indices(block_corners(rng.uniform("positions", 1, 2), window, grid), window, grid)[:, 0]
        order = rng.uniform("order", cells.shape[1]).argsort(dim=1)
        visible = self.grid_shapes(grid)[0][0]
        context, target = (
            cells.gather(1, part.sort(dim=1).values) for part in (order[:, :visible], order[:, visible:])
        )
        return Masks(context, target[:, None])

    def window(self, grid: GridSize) -> GridSize:
        """Return rows and columns of a window."""
        return min(self.size, grid[0]), min(self.size, grid[1])

    def grid_shapes(self, grid: GridSize) -> list[MaskShape]:
        rows, columns = self.window(grid)
        hidden = int(rows * columns * self.mask_ratio)
        return [(rows * columns - hidden, 1, hidden)]
