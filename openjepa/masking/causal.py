"""Predict the future from the past.   B batch  T time steps  S tokens of a time step"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout, Masks, MaskShape
from openjepa.masking.strategy import MaskStrategy, require_range


@dataclass(frozen=True)
class Causal(MaskStrategy):
    """The first time steps are the context, all later ones the target; the length of the context varies by step.

    The first axis of the grid is time: frames of video, windows of a series. The length is shared by the global batch.
    """

    context_fraction: tuple[float, float] = (0.25, 0.75)  # range of the visible time steps, as a fraction of all

    def __post_init__(self):
        super().__post_init__()
        require_range(self, "context_fraction")

    def draw_mask(
        self,
        layout: Layout,
        pos: Float[Tensor, "B N P"] | None,
        valid: Bool[Tensor, "B N"] | None,
        rng: CounterRNG,
        progress: float,
    ) -> Masks:
        lengths = self.context_steps(layout)
        length = lengths[int(rng.global_uniform("context length").item() * len(lengths))]
        return past_and_future(layout, length, len(rng.index))

    def context_steps(self, layout: Layout) -> list[int]:
        """Return every number of visible time steps. Raises UserError if the layout has no time steps to hide."""
        steps = layout.shape[0] if layout.shape else 1
        if steps < 2:
            raise UserError("--masks causal requires a grid with at least 2 time steps: try --masks random")
        low, high = (min(max(round(steps * each), 1), steps - 1) for each in self.context_fraction)
        return list(range(low, high + 1))

    def shapes(self, layout: Layout) -> list[MaskShape]:
        lengths, tokens = self.context_steps(layout), layout.count // (layout.shape or (1,))[0]
        return [(length * tokens, 1, layout.count - length * tokens) for length in lengths]


def past_and_future(layout: Layout, context_steps: int, batch: int) -> Masks:
    """Return the masks that show the first time steps of each sample and hide all later ones."""
    tokens = math.prod((layout.shape or (1,))[1:])
    index = torch.arange(layout.count).expand(batch, -1)
    return Masks(index[:, : context_steps * tokens], index[:, None, context_steps * tokens :])
