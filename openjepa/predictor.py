"""The predictor: from what is seen and where to look, what is there.   B batch  C context  M blocks  T tokens  P coordinates  D width"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.nn.positions import Positions, rotary, sincos
from openjepa.nn.transformer import Block
from openjepa.types import Tokens


class Predictor(nn.Module):
    """A narrow transformer over [context; queries]. Each target block is a sequence of its own (paper, section 3)."""

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        positions: Positions = "sincos",
    ):
        super().__init__()
        self.dim, self.head, self.positions = dim, dim // num_heads, positions
        self.embed = nn.Linear(input_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.proj = nn.Linear(dim, output_dim)

    def forward(
        self, context: Tokens, where: Float[Tensor, "B M T P"], given: Float[Tensor, "B H A"] | None = None
    ) -> Float[Tensor, "B M T E"]:
        """A prediction for every position asked for. Context tokens get their position again, as in the released code."""
        batch, blocks, asked, _ = where.shape
        seen = self.embed(context.x) + sincos(context.pos, self.dim)
        query = self.mask_token + sincos(where, self.dim).flatten(0, 1)
        turn = None
        if self.positions == "rope":  # besides: a query has nothing else to be told apart by
            turn = rotary(torch.cat([repeat(context.pos, blocks), where.flatten(0, 1)], dim=1), self.head)

        x = torch.cat([repeat(seen, blocks), query.to(seen.dtype)], dim=1)  # B·M C+T D
        valid = None
        if context.valid is not None:
            shown = repeat(context.valid, blocks)
            valid = torch.cat([shown, shown.new_ones(len(shown), asked)], dim=1)
        for block in self.blocks:
            x = block(x, valid, turn)

        x = self.proj(self.norm(x[:, -asked:]))
        return x.view(batch, blocks, asked, -1)


def repeat(x: Tensor, times: int) -> Tensor:
    """Each sample `times` in a row: B … -> B·times …"""
    return x[:, None].expand(-1, times, *x.shape[1:]).flatten(0, 1)
