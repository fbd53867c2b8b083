"""A pre-norm transformer under timm's parameter names.   B batch  N, Q tokens  D width  H heads"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from openjepa.core.errors import UserError
from openjepa.nn.positions import Turn, turned
from openjepa.nn.products import Linear, self_attend


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
        self, x: Float[Tensor, "B N D"], heeds: Bool[Tensor, "#B #N N"] | None = None, turn: Turn | None = None
    ) -> Float[Tensor, "B N D"]:
        batch, count, dim = x.shape
        qkv = self.qkv(x).view(batch, count, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # 3 B H N D/H
        if turn is not None:
            qkv = torch.cat([turned(qkv[:2], turn), qkv[2:]])
        x = self_attend(qkv, None if heeds is None else heeds[:, None])
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
        self, x: Float[Tensor, "B N D"], heeds: Bool[Tensor, "#B #N N"] | None = None, turn: Turn | None = None
    ) -> Float[Tensor, "B N D"]:
        x = x + self.attn(self.norm1(x), heeds, turn)
        return x + self.mlp(self.norm2(x))


def recompute_blocks(network: nn.Module) -> None:
    """Lets every block keep its inputs alone, and work out the rest again in the backward pass; the same numbers, in place."""
    for module in network.modules():
        if isinstance(module, Block):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)


Init = Literal["released", "xavier"]


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator, how: Init = "released") -> None:
    """Weights from a normal of deviation 0.02 truncated at ±2, biases 0, norms 1 and 0: as in effect in the released runs.

    "xavier": matrices of deviation √(2 / (inputs + outputs)), which at width 192 is two to four times that; not a stem's,
    which has an option of its own. The released code also divides residual projections by sqrt(2·layer), then overwrites
    them; so do we not.
    """
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            std = (
                (2 / sum(parameter.shape)) ** 0.5
                if how == "xavier" and parameter.ndim == 2 and "patch_embed" not in name
                else 0.02
            )
            nn.init.trunc_normal_(parameter, std=std, a=-2.0, b=2.0, generator=generator)
        else:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)


@torch.no_grad()
def unit_stem(stem: nn.Module, width: int) -> None:
    """Scales each matrix of the stem to deviation 1/√(inputs): a patch of whitened input becomes a token of unit size.

    At the released 0.02 a patch of 48 numbers makes a token of size 0.14, beside a position of size 0.7, and small runs
    spend their time on predicting positions; see docs/log.md. Between several layers size is lost: the last makes up for
    what is measured on noise, tokens of `width` numbers.
    """
    matrices = [parameter for parameter in stem.parameters() if parameter.ndim > 1]
    for parameter in matrices:
        parameter.mul_(parameter[0].numel() ** -0.5 / 0.02)
    if len(matrices) > 1:
        noise = torch.randn(1, 256, width, generator=torch.Generator().manual_seed(0))
        matrices[-1].div_(stem(noise).square().mean().sqrt())
