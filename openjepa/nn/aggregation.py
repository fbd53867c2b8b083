"""Aggregate the features of neighbors, or of a whole context, by cross-attention.

B samples  N tokens  K neighbors  D width  H heads
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openjepa.core.types import Tokens, gather
from openjepa.nn.cpu_kernels import Linear
from openjepa.nn.transformer import Mlp


class Neighbors(NamedTuple):
    """Other tokens of each token."""

    index: Int[Tensor, "B N K"]
    valid: Bool[Tensor, "B N K"]  # False where a token has fewer neighbors than K


@lru_cache
def grid_neighbors(rows: int, columns: int) -> Neighbors:
    """Return the up to eight tokens around each token of a grid; those beyond its border are not valid."""
    row, column = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    y, x = (torch.stack([own + step[axis] for step in around], 1) for axis, own in enumerate((row, column)))
    valid = (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
    index = y.clamp(0, rows - 1) * columns + x.clamp(0, columns - 1)
    return Neighbors(index[None], valid[None])


def most_similar(x: Float[Tensor, "B N D"], neighbors: Neighbors, count: int) -> Neighbors:
    """Return the `count` neighbors of each token with the largest cosine similarity to it."""
    index, valid = (each.to(x.device).expand(len(x), -1, -1) for each in neighbors)
    unit = F.normalize(x, dim=-1)
    similarity = torch.einsum("bnd,bnkd->bnk", unit, gather(unit, index)).masked_fill(~valid, -torch.inf)
    best = similarity.topk(count, dim=-1).indices
    return Neighbors(index.gather(2, best), valid.gather(2, best))


class CrossAttentionBlock(nn.Module):
    """A query attends to itself and to some tokens, then passes an MLP. Source: CaiT (arXiv 2103.17239), section 3."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.query, self.key, self.value, self.proj = (Linear(dim, dim) for _ in range(4))
        self.mlp = Mlp(dim, 4 * dim)

    def forward(
        self, query: Float[Tensor, "B N D"], tokens: Float[Tensor, "B M D"], neighbors: Neighbors
    ) -> Float[Tensor, "B N D"]:
        """Return one vector for each query; `neighbors` are indices into `tokens`."""
        own, others = self.norm1(query), self.norm1(tokens)

        def with_own(layer: nn.Module) -> Float[Tensor, "B N _ H d"]:
            near = gather(layer(others), neighbors.index)
            return torch.cat([layer(own)[:, :, None], near], 2).unflatten(-1, (self.num_heads, -1))

        q = self.query(own).unflatten(-1, (self.num_heads, -1))
        logits = torch.einsum("bnhd,bnkhd->bnhk", q, with_own(self.key)) * q.shape[-1] ** -0.5
        hidden = F.pad(~neighbors.valid, (1, 0))[:, :, None]  # a query always attends to itself
        weights = logits.masked_fill(hidden, -torch.inf).softmax(-1)
        x = query + self.proj(torch.einsum("bnhk,bnkhd->bnhd", weights, with_own(self.value)).flatten(2))
        return x + self.mlp(self.norm2(x))


class AggregationHead(nn.Module):
    """Cross-attention blocks that summarize neighbors for targets, and the whole context for predictions.

    Source: DMT-JEPA (Mo and Yun, 2024, arXiv 2405.17995), section 3.
    """

    def __init__(self, dim: int, num_heads: int, depth: int = 2):
        super().__init__()
        self.blocks = nn.ModuleList(CrossAttentionBlock(dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def aggregate_neighbors(self, x: Float[Tensor, "B N D"], neighbors: Neighbors) -> Float[Tensor, "B N D"]:
        """Summarize the neighbors of each token; every query starts as the mean token of the sample."""
        query = x.mean(1, keepdim=True).expand_as(x)
        for block in self.blocks:
            query = block(query, x, neighbors)
        return self.norm(query)

    def aggregate_context(self, context: Tokens) -> Tokens:
        """Let the mean token attend to all tokens of a context, and add the result to each of them, in every block."""
        x, valid = context.x, context.valid
        every = torch.arange(x.shape[1], device=x.device).expand(len(x), 1, -1)
        visible = torch.ones_like(every, dtype=torch.bool) if valid is None else valid[:, None]
        summary = context.mean()[:, None].to(x.dtype)
        for block in self.blocks:
            summary = block(summary, x, Neighbors(every, visible))
            x = x + summary
        return context._replace(x=self.norm(x))
