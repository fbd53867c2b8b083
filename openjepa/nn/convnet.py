"""A convolutional encoder of observations: a map of features, or one vector, for each time step.

B batch  F time steps  Y X rows and columns of cells  E raw width  C hidden channels  D width
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import nn

from openjepa.core.protocols import Encoder, Tokenizer
from openjepa.core.types import Keep, Layout, Tokens

Latent = Literal["map", "vector"]


@dataclass(frozen=True)
class ConvNetConfig:
    """Sizes of a convolutional encoder."""

    dim: int = 16  # width of a latent: of each cell of a map, or of the vector
    hidden: int = 32  # channels of the hidden layers
    depth: int = 2  # 3×3 convolutions after the tokenizer
    latent: Latent = "map"  # map: a latent for each cell, which planning needs; vector: one for the whole observation

    def build(self, tokenizer: Tokenizer, layout: Layout) -> ConvNet:
        """Build the network for observations of this layout: time steps, and rows and columns of cells."""
        assert layout.shape is not None
        return ConvNet(tokenizer, self, (layout.shape[-2], layout.shape[-1]))

    def describe(self) -> str:
        return f"{self.depth} convolutions of {self.hidden} channels, {self.latent} of width {self.dim}"


class ConvNet(Encoder):
    """Residual 3×3 convolutions over the cells of each time step; no time step sees another."""

    def __init__(self, tokenizer: Tokenizer, config: ConvNetConfig, cells: tuple[int, int]):
        super().__init__()
        self.config, self.cells = config, cells
        self.patch_embed = tokenizer  # to `hidden` channels
        self.convs = nn.ModuleList(nn.Conv2d(config.hidden, config.hidden, 3, padding=1) for _ in range(config.depth))
        self.norms = nn.ModuleList(nn.GroupNorm(1, config.hidden) for _ in range(config.depth))
        if config.latent == "map":
            self.head: nn.Module = nn.Conv2d(config.hidden, config.dim, 1)
        else:
            self.head = nn.Linear(config.hidden * cells[0] * cells[1], config.dim)

    def forward(self, tokens: Tokens, keep: Keep | None = None, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        """Encode the observations of B·F time steps; return B samples of F·Y·X tokens (map) or F tokens (vector)."""
        rows, columns = self.cells
        x = self.patch_embed(tokens).x
        steps = x.shape[1] // (rows * columns)
        x = x.reshape(-1, rows, columns, x.shape[-1]).movedim(-1, 1)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + conv(F.silu(norm(x)))
        if self.config.latent == "vector":
            x = self.head(F.silu(x).flatten(1)).unflatten(0, (-1, steps))
            pos = tokens.pos.unflatten(1, (steps, -1))[:, :, 0]
            return (Tokens(x, pos),) * len(layers)
        x = self.head(F.silu(x)).flatten(2).transpose(1, 2).unflatten(0, (-1, steps)).flatten(1, 2)
        return (Tokens(x, tokens.pos),) * len(layers)
