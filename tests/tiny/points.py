"""A ragged set of points: 12 to 24 points on a sphere or a cube's surface, each with a weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openjepa.core.types import Layout, Tokens
from tests.tiny.generated import Generated, GeneratedModality


@dataclass(frozen=True)
class Points(GeneratedModality):
    """Points in space. A view is (B, N, 4): coordinates and 1; padding is 0."""

    @property
    def layout(self) -> Layout:
        return Layout(None, 24, 3)

    @property
    def token_dim(self) -> int:
        return 4

    def synthetic(self, size: int, seed: int) -> Generated:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(size, 24, 3, generator=generator)
        label = torch.randint(0, 2, (size,), generator=generator)
        norm = torch.where(label[:, None, None] == 0, x.norm(dim=-1, keepdim=True), x.abs().amax(-1, keepdim=True))
        count = torch.randint(12, 25, (size,), generator=generator)
        valid = torch.arange(24) < count[:, None]
        view = torch.cat([2 * x / norm, torch.ones(size, 24, 1)], -1).masked_fill(~valid[..., None], 0)
        return Generated((view,), label, pos=view[..., :3], valid=valid)

    def tokens(self, view: Tensor) -> Tokens:
        return Tokens(view, view[..., :3], view[..., 3] != 0)
