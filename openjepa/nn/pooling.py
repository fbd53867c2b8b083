"""Pool tokens: with attention, and by rows of a grid.   B batch  N tokens  R rows  D F widths  d width of a head"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.types import zero_padding
from openjepa.nn.transformer import Mlp


class AttentivePool(nn.Module):
    """Pool tokens with one learned query: a block of cross-attention and an MLP, each with a residual.

    Source: V-JEPA (Bardes et al., 2024), section 4: pooling for the frozen evaluation.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0):
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.zeros(1, 1, dim))
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, tokens: Float[Tensor, "B N D"], valid: Bool[Tensor, "B N"] | None = None) -> Float[Tensor, "B D"]:
        """Pool the valid tokens of each sample; a sample without any gives the vector that zeros would give."""
        tokens = zero_padding(tokens, valid)
        if valid is not None:
            valid = valid | ~valid.any(1, keepdim=True)
        x = self.query + self.proj(self.attend(self.norm1(tokens), valid))[:, None]
        return (x + self.mlp(self.norm2(x)))[:, 0]

    def attend(self, tokens: Float[Tensor, "B N D"], valid: Bool[Tensor, "B N"] | None) -> Float[Tensor, "B D"]:
        """Attend to the tokens with the query of each head, without a key or a value for each token.

        With one query q per head, q · (K x + b) is (Kᵀ q) · x and a constant that softmax ignores, and the mean of V x
        + b is V times the mean of x, plus b: (heads / D) of the multiplications.
        """
        (wk, wv), (_, bv) = self.kv.weight.chunk(2), self.kv.bias.chunk(2)
        q = self.q(self.query).view(self.num_heads, 1, -1)
        keys = (q @ wk.unflatten(0, (self.num_heads, -1))).squeeze(1) / q.shape[-1] ** 0.5  # heads D
        scores = (tokens @ keys.T).mT.float()  # B heads N
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None], -torch.inf)
        means = scores.softmax(-1).to(tokens.dtype) @ tokens  # B heads D
        values = means.transpose(0, 1) @ wv.unflatten(0, (self.num_heads, -1)).mT  # heads B d
        return values.transpose(0, 1).flatten(1) + bv


def pool_rows(x: Float[Tensor, "B N D"], rows: int, how: Literal["mean", "max"]) -> Float[Tensor, "B F"]:
    """Pool each row of a grid of tokens, and concatenate the rows from the first on.

    Raises UserError if the tokens are not so many rows, as of another project's encoder.
    """
    if x.shape[1] % rows:
        raise UserError(
            f"{x.shape[1]} tokens are not {rows} rows of patches: wrap this encoder with Audio(pooling='mean')"
        )
    grid = x.unflatten(1, (rows, -1))
    return (grid.mean(2) if how == "mean" else grid.amax(2)).flatten(1)
