"""Roll-outs with actions: a point in a plane that actions push."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openjepa.core.types import Layout, Tokens
from tests.tiny.generated import Generated, GeneratedModality

STEPS = 8


@dataclass(frozen=True)
class Rollout(GeneratedModality):
    """States over time. A view is (B, 8, 2); conditions are the 7 actions (B, 7, 2) between the states."""

    @property
    def layout(self) -> Layout:
        return Layout.grid(STEPS)

    @property
    def token_dim(self) -> int:
        return 2

    def synthetic(self, size: int, seed: int) -> Generated:
        generator = torch.Generator().manual_seed(seed)
        actions = torch.randn(size, STEPS - 1, 2, generator=generator)
        start = torch.randn(size, 1, 2, generator=generator)
        states = torch.cat([start, start + actions.cumsum(1)], 1)
        return Generated((states,), (states[:, -1, 0] > 0).long(), conditions=actions)

    def tokens(self, view: Tensor) -> Tokens:
        pos = torch.arange(view.shape[1], device=view.device, dtype=torch.float32)[:, None]
        return Tokens(view, pos.expand(len(view), -1, -1))
