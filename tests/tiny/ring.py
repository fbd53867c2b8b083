"""A graph whose tokenizer mixes neighbors: values on a ring of 16 nodes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from openjepa.core.protocols import Tokenizer
from openjepa.core.types import Layout, Tokens
from tests.tiny.generated import Generated, GeneratedModality

NODES = 16


@dataclass(frozen=True)
class Ring(GeneratedModality):
    """Nodes on a ring. A view is (B, 16, 3): three values at each node."""

    @property
    def layout(self) -> Layout:
        return Layout(None, NODES, 2)

    @property
    def token_dim(self) -> int:
        return 3

    def synthetic(self, size: int, seed: int) -> Generated:
        generator = torch.Generator().manual_seed(seed)
        label = torch.randint(0, 2, (size,), generator=generator)
        phase = 6.28 * torch.rand(size, 1, 1, generator=generator)
        angle = torch.arange(NODES)[:, None] * 0.4 * (label[:, None, None] + 1) + phase
        view = (angle + torch.tensor([0.0, 2.1, 4.2])).sin()
        return Generated((view + 0.1 * torch.randn(view.shape, generator=generator),), label)

    def tokens(self, view: Tensor) -> Tokens:
        step = torch.arange(NODES, device=view.device)
        angle = step * (6.2831853 / NODES)
        pos = 3 * torch.stack([angle.cos(), angle.sin()], -1)
        apart = (step[:, None] - step).abs()
        edges = (apart == 1) | (apart == NODES - 1)
        batch = len(view)
        return Tokens(view, pos.expand(batch, -1, -1), None, edges.expand(batch, -1, -1))

    def tokenizer(self, dim: int) -> Tokenizer:
        return NeighborMean(dim)


class NeighborMean(Tokenizer):
    """A layer on a node's values and the mean of its visible neighbors' values."""

    local = False

    def __init__(self, dim: int):
        super().__init__()
        self.own, self.neighbors = nn.Linear(3, dim), nn.Linear(3, dim)

    def forward(self, tokens: Tokens) -> Tokens:
        x, _, valid, edges = tokens
        assert edges is not None
        weight = edges.float() if valid is None else (edges & valid[:, None]).float()
        mean = weight @ x / weight.sum(-1, keepdim=True).clamp(min=1)
        return tokens._replace(x=self.own(x) + self.neighbors(mean))
