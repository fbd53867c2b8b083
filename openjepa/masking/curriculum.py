"""A-JEPA's curriculum: from random blocks to time–frequency masks.   B batch  N tokens  P coordinates"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout, Masks, MaskShape
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.spectrogram import Spectrogram
from openjepa.masking.strategy import MaskStrategy


@dataclass(frozen=True)
class Curriculum(MaskStrategy):
    """Each step draws time–frequency masks with a probability that grows from almost 0 to 1, and else random blocks.

    p(s) = min(1, sqrt(s (1 - c²)) + c²), s the fraction of the run that is done, c = `start`

    Source: A-JEPA (Fei et al., 2023, arXiv 2311.15830).
    """

    start: float = 0.01  # c; the probability of a hard mask in the first step is its square
    easy: MultiBlock = field(default_factory=MultiBlock)  # random blocks
    hard: Spectrogram = field(default_factory=Spectrogram)  # time–frequency masks

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.start <= 1:
            raise UserError(f"--masks.start must be from 0 to 1, got {self.start:g}: try --masks.start 0.01")

    def probability(self, progress: float) -> float:
        """Return the probability of a hard mask when a fraction of the run is done."""
        return min(1.0, math.sqrt(progress * (1 - self.start**2)) + self.start**2)

    def draw_mask(
        self,
        layout: Layout,
        pos: Float[Tensor, "B N P"] | None,
        valid: Bool[Tensor, "B N"] | None,
        rng: CounterRNG,
        progress: float,
    ) -> Masks:
        is_hard = rng.global_uniform("curriculum").item() < self.probability(progress)
        return (self.hard if is_hard else self.easy).draw_mask(layout, pos, valid, rng, progress)

    def shapes(self, layout: Layout) -> list[MaskShape]:
        return sorted({*self.easy.shapes(layout), *self.hard.shapes(layout)})
