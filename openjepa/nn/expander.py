"""The expander of joint embedding: an MLP whose output the loss compares.   B batch  D input width  E output width"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class ExpanderConfig:
    """Sizes of the expander, an MLP."""

    dim: int = 2048  # width (VICReg: 8192)
    depth: int = 3  # number of linear layers; VICReg and LeJEPA: 3
    output_dim: int = 0  # width of the output; 0: as dim (VICReg)

    def widths(self, input_dim: int) -> list[int]:
        """Return the width before the first and after every layer."""
        return [input_dim, *[self.dim] * (self.depth - 1), self.output_dim or self.dim]

    def flops(self, input_dim: int) -> int:
        """Return the forward FLOPs of one vector and of its share of the output's covariance matrix."""
        *_, output = widths = self.widths(input_dim)
        return 2 * (sum(before * after for before, after in pairwise(widths)) + output**2)


class Expander(nn.Module):
    """An MLP: linear layers with batch norm and ReLU between them.

    With `running_stats`, batch norm keeps the statistics that features need outside of a batch, after training.
    """

    def __init__(self, input_dim: int, config: ExpanderConfig, running_stats: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(config.widths(input_dim)))
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(config.dim, track_running_stats=running_stats) for _ in range(config.depth - 1)
        )

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        first, *rest = self.layers
        x = first(x)
        for norm, layer in zip(self.norms, rest, strict=True):
            x = layer(F.relu(norm(x)))
        return x
