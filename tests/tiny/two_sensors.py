"""A pair: two sensors record the same event, each with a view of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openjepa.core.types import Layout, Tokens
from tests.tiny.generated import Generated, GeneratedModality


@dataclass(frozen=True)
class TwoSensors(GeneratedModality):
    """Two signals per sample, (B, 64) and (B, 32). `second=True` reads the second one alone, for its own run."""

    second: bool = False

    @property
    def layout(self) -> Layout:
        return Layout.grid(8)

    @property
    def token_dim(self) -> int:
        return 4 if self.second else 8

    def synthetic(self, size: int, seed: int) -> Generated:
        generator = torch.Generator().manual_seed(seed)
        label = torch.randint(0, 2, (size,), generator=generator)
        phase = 6.28 * torch.rand(size, 1, generator=generator)
        wide, narrow = ((torch.arange(n) * 12.0 / n * (label[:, None] + 1) + phase).sin() for n in (64, 32))
        return Generated((narrow,) if self.second else (wide, narrow), label)

    def tokens(self, view: Tensor) -> Tokens:
        x = view.unflatten(1, (8, -1))
        pos = torch.arange(8, device=view.device, dtype=torch.float32)[:, None]
        return Tokens(x, pos.expand(len(view), -1, -1))
