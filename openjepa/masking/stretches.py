"""Hide whole stretches of time, or whole ranges of pitch, of a spectrogram.   B batch  N tokens"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks, MaskShape
from openjepa.masking.geometry import GridSize, grid_too_small
from openjepa.masking.strategy import GridStrategy, require_at_least, require_fraction


@dataclass(frozen=True)
class Stretches(GridStrategy):
    """All tokens in some columns (times) or rows (pitches) of the grid are the target, all others the context.

    The hidden columns form stretches of equal width at random places, which may touch.

    Source: the time masks of Riou et al. (arXiv 2405.08679), who found them worse than unstructured ones.
    """

    axis: Literal["time", "frequency"] = "time"  # what is hidden: columns or rows
    mask_ratio: float = 0.6  # fraction of the columns or rows that are hidden
    stretches: int = 1  # stretches that they form; more: shorter gaps to bridge

    def __post_init__(self):
        super().__post_init__()
        require_fraction(self, "mask_ratio")
        require_at_least(self, 1, "stretches")

    def check(self, grid: GridSize) -> None:
        """Raise UserError unless something is hidden, something visible, and every stretch has a row or column."""
        count = self.lines(grid)
        hidden = self.hidden_count(grid)
        if not 0 < hidden < count:
            raise UserError(grid_too_small(grid, f"{hidden} of {count} rows or columns would be hidden"))
        if self.stretches > min(hidden, count - hidden + 1):
            raise UserError(
                f"--masks.stretches {self.stretches} are more than {hidden} hidden of {count} rows or columns allow: "
                f"try --masks.stretches {min(hidden, count - hidden + 1)}"
            )

    def draw(self, grid: GridSize, rng: CounterRNG) -> Masks:
        """Shuffle stretches and visible lines: every order is equally likely."""
        count, hidden, batch = self.lines(grid), self.hidden_count(grid), len(rng.index)
        visible = count - hidden
        order = rng.uniform("order", visible + self.stretches).argsort(dim=1)  # below `stretches`: one of them
        widths = torch.full((visible + self.stretches,), 1)
        widths[: self.stretches] = hidden // self.stretches
        widths[: hidden % self.stretches] += 1
        is_hidden = torch.stack([(row < self.stretches).repeat_interleave(widths[row]) for row in order])
        cells = (
            is_hidden[:, None, :].expand(batch, *grid)
            if self.axis == "time"
            else is_hidden[..., None].expand(batch, *grid)
        )
        ordered = cells.flatten(1).long().argsort(dim=1, stable=True)
        context, target = ordered.split(
            [visible * (grid[0] * grid[1] // count), hidden * (grid[0] * grid[1] // count)], 1
        )
        return Masks(context, target[:, None])

    def lines(self, grid: GridSize) -> int:
        """Return the columns of the grid, or its rows."""
        return grid[1] if self.axis == "time" else grid[0]

    def hidden_count(self, grid: GridSize) -> int:
        """Return how many rows or columns are hidden."""
        return round(self.lines(grid) * self.mask_ratio)

    def grid_shapes(self, grid: GridSize) -> list[MaskShape]:
        size, hidden = grid[0] * grid[1] // self.lines(grid), self.hidden_count(grid)
        return [((self.lines(grid) - hidden) * size, 1, hidden * size)]
