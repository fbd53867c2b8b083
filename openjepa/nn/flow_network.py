"""Estimate optical flow from coarse to fine.   B pairs  C channels  H W cells of a level"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.nn.warp import correlation, resize_flow, warp

RADIUS = 4  # cells on each side that the correlation looks at
LARGEST = 64.0  # cells of a level: flow is clipped there, so that a wrong estimate cannot grow without bound


class FlowLevel(nn.Module):
    """Refine the flow of a coarser level: warp, correlate, and predict what is left."""

    def __init__(self, width: int, hidden: tuple[int, ...] = (96, 64, 32)):
        super().__init__()
        self.reduce = nn.Conv2d(width, 32, 1)
        widths = ((2 * RADIUS + 1) ** 2 + 32 + 2, *hidden)
        self.convs = nn.ModuleList(nn.Conv2d(*pair, 3, padding=1) for pair in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(1, each) for each in hidden)
        self.out = nn.Conv2d(hidden[-1], 2, 3, padding=1)

    def forward(
        self, first: Float[Tensor, "B C H W"], second: Float[Tensor, "B C H W"], flow: Float[Tensor, "B 2 H W"]
    ) -> Float[Tensor, "B 2 H W"]:
        """Return the flow of this level from that of the level above, in cells of this level."""
        matches = correlation(F.normalize(first, dim=1), F.normalize(warp(second, flow), dim=1), RADIUS)
        x = torch.cat([first.shape[1] * matches, self.reduce(first), flow], 1)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)), 0.1)
        return (flow + self.out(x).float()).clamp(-LARGEST, LARGEST)


class FlowNetwork(nn.Module):
    """The predictor of MC-JEPA: its latent variable is the flow, by which it warps features.

    Source: MC-JEPA (arXiv 2307.12698), section 3.2, after PWC-Net (arXiv 1709.02371).
    """

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.levels = nn.ModuleList(FlowLevel(width) for width in widths)

    def forward(self, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        """Return the flow from the first to the second frame at each level, the finest first, in cells of the level."""
        batch, _, height, width = first[-1].shape
        flow = first[-1].new_zeros(batch, 2, height, width, dtype=torch.float32)
        flows: list[Tensor] = []
        for level, one, other in zip(reversed(self.levels), reversed(first), reversed(second), strict=True):
            flow = level(one, other, resize_flow(flow, (one.shape[2], one.shape[3])))
            flows.insert(0, flow)
        return flows
