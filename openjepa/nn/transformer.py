"""A pre-norm transformer with timm's parameter names.   B batch  N tokens  D width  H heads"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openjepa.core.errors import UserError
from openjepa.nn.cpu_kernels import Linear, self_attention
from openjepa.nn.positions import RotaryAngles, apply_rope


class Attention(nn.Module):
    """Multi-head self-attention.

    `attn_mask[b, i, j]` is True where token i attends to token j; without a mask all tokens attend to all. `rope`
    rotates queries and keys.
    """

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        if dim % num_heads:
            raise UserError(f"the width must be a multiple of the number of heads, got width {dim}, {num_heads} heads")
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        attn_mask: Bool[Tensor, "#B #N N"] | None = None,
        rope: RotaryAngles | None = None,
    ) -> Float[Tensor, "B N D"]:
        batch, count, dim = x.shape
        qkv = self.qkv(x).view(batch, count, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # 3 B H N D/H
        if rope is not None:
            qkv = torch.cat([apply_rope(qkv[:2], rope), qkv[2:]])
        x = self_attention(qkv, None if attn_mask is None else attn_mask[:, None])
        x = x.transpose(1, 2).reshape(batch, count, dim)
        return self.proj(x)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A transformer block: x + attention(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        attn_mask: Bool[Tensor, "#B #N N"] | None = None,
        rope: RotaryAngles | None = None,
    ) -> Float[Tensor, "B N D"]:
        x = x + self.attn(self.norm1(x), attn_mask, rope)
        return x + self.mlp(self.norm2(x))


def checkpoint_activations(network: nn.Module) -> None:
    """Make every block store only its inputs and recompute the rest in the backward pass, in place.

    Results are exactly the same.
    """
    for module in network.modules():
        if isinstance(module, Block):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)
