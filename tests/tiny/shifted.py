"""Two views that share a crop: the second is the first, shifted and scaled, with the parameters as conditions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout, Samples, Tokens
from tests.tiny.generated import Generated, GeneratedModality


class ShiftedPairs(Generated):
    """Crops of longer signals: a view, and the same crop with a random gain and offset."""

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        rng = rng or CounterRNG.of(0, 0, index.numpy().astype(np.int64))
        start = (rng.uniform("start") * 32).long()
        crop = self.views[0][index].gather(1, start[:, None] + torch.arange(32))
        gain, offset = rng.uniform("gain") + 0.5, rng.uniform("offset") - 0.5
        moved = crop * gain[:, None] + offset[:, None]
        return Samples((crop, moved), self.label[index], conditions=torch.stack([gain, offset], -1)[:, None])


@dataclass(frozen=True)
class Shifted(GeneratedModality):
    """Signals of 32 values. Views are (B, 32); conditions (B, 1, 2) are gain and offset of the second view."""

    @property
    def layout(self) -> Layout:
        return Layout.grid(8)

    @property
    def token_dim(self) -> int:
        return 4

    def synthetic(self, size: int, seed: int) -> ShiftedPairs:
        generator = torch.Generator().manual_seed(seed)
        label = torch.randint(0, 2, (size,), generator=generator)
        phase = 6.28 * torch.rand(size, 1, generator=generator)
        return ShiftedPairs(((torch.arange(64) * 0.2 * (label[:, None] + 1) + phase).sin(),), label)

    def tokens(self, view: Tensor) -> Tokens:
        pos = torch.arange(8, device=view.device, dtype=torch.float32)[:, None]
        return Tokens(view.unflatten(1, (8, 4)), pos.expand(len(view), -1, -1))
