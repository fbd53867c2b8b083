"""Trajectories with actions: a point in a plane that actions push."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openjepa.core.types import FileList, Layout, Tokens
from openjepa.nn.stems import WindowEmbed
from tests.tiny.generated import GENERATED_FILES, Generated

STEPS = 8


@dataclass(frozen=True)
class Trajectory:
    """States over time. A view is (B, 8, 2); conditions are the 7 actions (B, 7, 2) between the states."""

    size: int = 64  # number of generated samples

    @property
    def layout(self) -> Layout:
        return Layout.grid(STEPS)

    @property
    def token_dim(self) -> int:
        return 2

    def listing(self) -> FileList:
        return GENERATED_FILES

    def dataset(self, source: FileList, cache: Path | None = None) -> Generated:
        return self.synthetic(self.size, 0)

    def synthetic(self, size: int, seed: int) -> Generated:
        generator = torch.Generator().manual_seed(seed)
        actions = torch.randn(size, STEPS - 1, 2, generator=generator)
        start = torch.randn(size, 1, 2, generator=generator)
        states = torch.cat([start, start + actions.cumsum(1)], 1)
        return Generated((states,), (states[:, -1, 0] > 0).long(), conditions=actions)

    def tokens(self, view: Tensor) -> Tokens:
        pos = torch.arange(view.shape[1], device=view.device, dtype=torch.float32)[:, None]
        return Tokens(view, pos.expand(len(view), -1, -1))

    def tokenizer(self, dim: int) -> Any:
        return WindowEmbed(2, dim)

    def tokenizer_flops(self, dim: int) -> int:
        return 2 * 2 * dim
