"""Stems: map the pixels of a patch to a token.   B batch  N tokens  E raw width  D width"""

from __future__ import annotations

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """A patch's pixels to a feature: a convolution whose stride is its size, on patches already cut out."""

    def __init__(self, channels: int, patch: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, patch, patch)

    def forward(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N D"]:
        return nn.functional.linear(x, self.proj.weight.flatten(1), self.proj.bias)


class ConvStem(nn.Module):
    """A patch's pixels to a feature: 3×3 convolutions of stride 2 down to one place, the width doubling, then a linear map.

    Source: early convolutions (Xiao et al., NeurIPS 2021, arXiv 2106.14881). Differs: each patch by itself, with zeros around
    it, so that no hidden patch is seen through its neighbours; GELU; no batch normalisation.
    """

    def __init__(self, channels: int, patch: int, dim: int):
        super().__init__()
        self.shape = channels, patch, patch
        self.layers = nn.ModuleList(nn.Conv2d(*each, 3, 2, 1) for each in pairwise(self.widths(channels, patch, dim)))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N D"]:
        y = x.reshape(-1, *self.shape)
        for layer in self.layers:
            y = nn.functional.gelu(layer(y))
        return self.proj(y.view(*x.shape[:2], -1))

    @staticmethod
    def widths(channels: int, patch: int, dim: int) -> list[int]:
        """Channels before and after each convolution."""
        count = max(1, (patch - 1).bit_length())
        return [channels, *(max(1, dim >> (count - 1 - place)) for place in range(count))]

    @classmethod
    def work(cls, channels: int, patch: int, dim: int) -> int:
        """Operations on one patch, forward."""
        side, total = patch, 2 * dim * dim
        for before, after in pairwise(cls.widths(channels, patch, dim)):
            side = (side + 1) // 2
            total += 2 * 9 * before * after * side**2
        return total


class WindowEmbed(nn.Module):
    """A window's samples to a feature."""

    def __init__(self, width: int, dim: int):
        super().__init__()
        self.proj = nn.Linear(width, dim)

    def forward(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B N D"]:
        return self.proj(x)
