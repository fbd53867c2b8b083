"""Mask a point and those nearest to it: a strategy that needs positions and validity, and grows with progress."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout, Masks, MaskShape


@dataclass(frozen=True)
class Nearest:
    """The target is a random token and its nearest neighbors; the other valid tokens are the context."""

    count: int = 4  # tokens of the target at the start of the run; half as many more at the end
    masks_per_sample: int = 1

    def __call__(
        self, layout: Layout, pos: Tensor | None, valid: Tensor | None, rng: CounterRNG, progress: float
    ) -> tuple[Masks, ...]:
        if pos is None or valid is None:
            raise UserError("masks of nearest points need positions: use a modality of points")
        center = torch.where(valid, rng.uniform("center", valid.shape[1]), -1.0).argmax(1)
        distance = (pos - pos[torch.arange(len(pos)), center][:, None]).norm(dim=-1)
        order = torch.where(valid, distance, torch.inf).argsort(1)
        target = round(self.count * (1 + progress / 2))
        return (Masks(order[:, target:], order[:, None, :target], valid.gather(1, order[:, target:])),)

    def shapes(self, layout: Layout) -> list[MaskShape]:
        return []
