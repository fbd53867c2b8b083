"""Attentive pooling of tokens.   B batch  N tokens  D width"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openjepa.core.types import zero_padding
from openjepa.nn.cpu_kernels import attention
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
        batch, count, dim = tokens.shape
        k, v = self.kv(self.norm1(tokens)).view(batch, count, 2, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q = self.q(self.query).view(1, 1, self.num_heads, -1).transpose(1, 2).expand(batch, -1, -1, -1)
        attn_mask = None if valid is None else (valid | ~valid.any(1, keepdim=True))[:, None, None]  # B 1 1 N
        x = self.query + self.proj(attention(q, k, v, attn_mask).transpose(1, 2).reshape(batch, 1, dim))
        return (x + self.mlp(self.norm2(x)))[:, 0]
