"""A grid with three axes: 4 frames of 8×8 values in cells of 2×2×2."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openjepa.core.types import Layout, Tokens
from tests.tiny.generated import Generated, GeneratedModality

SHAPE = (2, 4, 4)


@dataclass(frozen=True)
class Volume(GeneratedModality):
    """A short gray video. A view is (B, 4, 8, 8)."""

    @property
    def layout(self) -> Layout:
        return Layout.grid(*SHAPE)

    @property
    def token_dim(self) -> int:
        return 8

    def synthetic(self, size: int, seed: int) -> Generated:
        generator = torch.Generator().manual_seed(seed)
        label = torch.randint(0, 2, (size,), generator=generator)
        t, y, x = torch.meshgrid(torch.arange(4), torch.arange(8), torch.arange(8), indexing="ij")
        phase = 6.28 * torch.rand(size, 1, 1, 1, generator=generator)
        along = torch.where(label[:, None, None, None] == 0, x + t, y + t)
        return Generated(((0.8 * along + phase).sin(),), label)

    def tokens(self, view: Tensor) -> Tokens:
        cells = view.unflatten(3, (4, 2)).unflatten(2, (4, 2)).unflatten(1, (2, 2))  # B 2 2 4 2 4 2
        x = cells.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)
        axes = torch.meshgrid(*(torch.arange(count, device=view.device) for count in SHAPE), indexing="ij")
        pos = torch.stack(axes, -1).flatten(0, 2).float()
        return Tokens(x, pos.expand(len(view), -1, -1))
