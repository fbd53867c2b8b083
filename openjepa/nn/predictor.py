"""The predictor: context tokens and target positions to target features.   B batch  C context  M blocks  T tokens  P coordinates  D width"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openjepa.core.types import Tokens
from openjepa.nn.cpu_kernels import Linear
from openjepa.nn.positions import Positions, rope_angles, sincos
from openjepa.nn.transformer import Block


class Predictor(nn.Module):
    """A narrow transformer over [context; queries]. Each target block is a sequence of its own (paper, section 3).

    With a shared context all blocks are one sequence, in which queries attend to the context and their own block, and the
    context to itself alone: it is computed once. No block sees another either way.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        positions: Positions = "sincos",
        context: Literal["each", "shared"] = "each",
    ):
        super().__init__()
        self.dim, self.head, self.positions, self.context = dim, dim // num_heads, positions, context
        self.embed = Linear(input_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.proj = Linear(dim, output_dim)

    def forward(
        self, context: Tokens, where: Float[Tensor, "B M T P"], given: Float[Tensor, "B H A"] | None = None
    ) -> Float[Tensor, "B M T E"]:
        """A prediction for every position asked for. Context tokens get their position again, as in the released code."""
        batch, blocks, asked, _ = where.shape
        times = 1 if self.context == "shared" else blocks  # sequences a sample
        places = where.reshape(batch * times, -1, where.shape[-1])
        seen = repeat_samples(self.embed(context.x) + sincos(context.pos, self.dim), times)
        query = self.mask_token + sincos(places, self.dim)
        turn = None
        if self.positions == "rope":  # besides: a query has nothing else to be told apart by
            turn = rope_angles(torch.cat([repeat_samples(context.pos, times), places], dim=1), self.head)

        x = torch.cat([seen, query.to(seen.dtype)], dim=1)  # B·times C+T D, or B C+M·T D
        valid = None if context.valid is None else repeat_samples(context.valid, times)
        alone = blocks if self.context == "shared" else 0
        heeds = attention_mask(seen.shape[1], query.shape[1], alone, valid, x.device)
        for block in self.blocks:
            x = block(x, heeds, turn)

        x = self.proj(self.norm(x[:, seen.shape[1] :]))
        return x.view(batch, blocks, asked, -1)


def attention_mask(
    shown: int, asked: int, blocks: int, valid: Bool[Tensor, "B C"] | None, device: torch.device
) -> Bool[Tensor, "#B #N N"] | None:
    """What each token of [context; queries] attends to: valid tokens; if in `blocks`, the context's and its own block's."""
    heeds = None
    if blocks:
        own = torch.arange(1, blocks + 1, device=device).repeat_interleave(asked // blocks)
        block = torch.cat([own.new_zeros(shown), own])  # 0 is the context
        heeds = ((block == 0) | (block == block[:, None]))[None]
    if valid is None:
        return heeds
    there = torch.cat([valid, valid.new_ones(len(valid), asked)], dim=1)[:, None]
    return there if heeds is None else heeds & there


def repeat_samples(x: Tensor, times: int) -> Tensor:
    """Each sample `times` in a row: B … -> B·times …"""
    return x[:, None].expand(-1, times, *x.shape[1:]).flatten(0, 1)
