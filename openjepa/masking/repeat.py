"""Draw several masks per sample."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.protocols import Masker
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks


@dataclass(frozen=True)
class RepeatMasker:
    """Draw several independent masks of each sample with another sampler (data2vec 2.0, arXiv 2212.07525)."""

    masker: Masker
    repeats: int

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Bool[Tensor, "B N"] | None, rng: CounterRNG, progress: float
    ) -> tuple[Masks, ...]:
        groups = [self.masker(pos, valid, rng.fold_in(repeat), progress) for repeat in range(self.repeats)]
        return tuple(mask for masks in groups for mask in masks)

    def shapes(self) -> list[tuple[int, int, int]]:
        return self.masker.shapes()
