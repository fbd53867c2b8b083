"""A pre-norm transformer under timm's parameter names.   B batch  N, Q tokens  D width  H heads"""

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
    """Multi-head self-attention; `heeds` says which tokens (last axis) each token attends to, or all attend to all."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        if dim % num_heads:
            raise UserError(f"width {dim} is not a multiple of {num_heads} heads")
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(
        self, x: Float[Tensor, "B N D"], heeds: Bool[Tensor, "#B #N N"] | None = None, turn: RotaryAngles | None = None
    ) -> Float[Tensor, "B N D"]:
        batch, count, dim = x.shape
        qkv = self.qkv(x).view(batch, count, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # 3 B H N D/H
        if turn is not None:
            qkv = torch.cat([apply_rope(qkv[:2], turn), qkv[2:]])
        x = self_attention(qkv, None if heeds is None else heeds[:, None])
        x = x.transpose(1, 2).reshape(batch, count, dim)
        return self.proj(x)


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x))."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self, x: Float[Tensor, "B N D"], heeds: Bool[Tensor, "#B #N N"] | None = None, turn: RotaryAngles | None = None
    ) -> Float[Tensor, "B N D"]:
        x = x + self.attn(self.norm1(x), heeds, turn)
        return x + self.mlp(self.norm2(x))


def checkpoint_activations(network: nn.Module) -> None:
    """Lets every block keep its inputs alone, and work out the rest again in the backward pass; the same numbers, in place."""
    for module in network.modules():
        if isinstance(module, Block):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)
