"""Hide a random fraction of a frame's cells at all times.   B batch  S cells of a frame"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout, Masks, MaskShape
from openjepa.masking.strategy import MaskStrategy, require_fraction
from openjepa.masking.tube import frame_size, tube_masks


@dataclass(frozen=True)
class RandomTube(MaskStrategy):
    """A random fraction of the cells of a frame is hidden at every time step, and is the target.

    Source: the tube masks of VideoMAE (Tong et al., arXiv 2203.12602), which V-JEPA compares with (its Table 4).
    """

    mask_ratio: float = 0.9  # fraction of the cells of a frame that are hidden

    def __post_init__(self):
        super().__post_init__()
        require_fraction(self, "mask_ratio")

    def draw_mask(
        self,
        layout: Layout,
        pos: Float[Tensor, "B N P"] | None,
        valid: Bool[Tensor, "B N"] | None,
        rng: CounterRNG,
        progress: float,
    ) -> Masks:
        steps, (rows, columns) = frame_size(layout, self)
        order = rng.uniform("order", rows * columns).argsort(dim=1)
        hidden = torch.zeros_like(order, dtype=torch.bool)
        hidden.scatter_(1, order[:, : self.hidden_count(rows * columns)], True)
        return tube_masks(hidden, steps)

    def hidden_count(self, cells: int) -> int:
        """Return how many cells of a frame are hidden. Raises UserError if it is 0 or every cell."""
        count = int(cells * self.mask_ratio)
        if not 0 < count < cells:
            raise UserError(
                f"--masks.mask-ratio {self.mask_ratio:g} hides {count} of the {cells} cells of a frame: "
                "try another ratio or a smaller --data.patch"
            )
        return count

    def shapes(self, layout: Layout) -> list[MaskShape]:
        steps, (rows, columns) = frame_size(layout, self)
        hidden = self.hidden_count(rows * columns)
        return [(steps * (rows * columns - hidden), 1, steps * hidden)]
