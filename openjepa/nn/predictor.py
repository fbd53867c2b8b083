"""The predictor: maps context tokens and target positions to predicted target features.

B batch  C context tokens  M target blocks  T tokens per block  P coordinates  D width  E output width
"""

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
    """A narrow transformer over [context tokens; queries].

    A query is the mask token plus the embedding of a target position. With `context_mode="each"`, every target block is
    a sequence of its own with a copy of the context (I-JEPA paper, section 3). With "shared", all blocks are one
    sequence: queries attend to the context and to their own block, and the context attends to itself only, so it is
    computed once. Target blocks never see each other in either mode.
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
        context_mode: Literal["each", "shared"] = "each",
    ):
        super().__init__()
        self.dim, self.head_dim, self.positions, self.context_mode = dim, dim // num_heads, positions, context_mode
        self.embed = Linear(input_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.proj = Linear(dim, output_dim)

    def forward(
        self, context: Tokens, where: Float[Tensor, "B M T P"], conditions: Float[Tensor, "B H A"] | None = None
    ) -> Float[Tensor, "B M T E"]:
        """Predict the features at every target position `where`.

        Context tokens get their positional embedding a second time here, as in the official code.
        """
        batch, blocks, block_tokens, _ = where.shape
        shared = self.context_mode == "shared"
        repeats = 1 if shared else blocks  # sequences per sample
        query_pos = where.reshape(batch * repeats, -1, where.shape[-1])
        embedded = repeat_samples(self.embed(context.x) + sincos(context.pos, self.dim), repeats)
        query = self.mask_token + sincos(query_pos, self.dim)
        rope = None
        if self.positions == "rope":  # in addition to sincos, without which all queries would be equal
            pos = torch.cat([repeat_samples(context.pos, repeats), query_pos], dim=1)
            rope = rope_angles(pos, self.head_dim)

        x = torch.cat([embedded, query.to(embedded.dtype)], dim=1)  # B·M C+T D, or B C+M·T D if shared
        valid = None if context.valid is None else repeat_samples(context.valid, repeats)
        attn_mask = attention_mask(embedded.shape[1], query.shape[1], blocks if shared else 0, valid, x.device)
        for block in self.blocks:
            x = block(x, attn_mask, rope)

        x = self.proj(self.norm(x[:, embedded.shape[1] :]))
        return x.view(batch, blocks, block_tokens, -1)


def attention_mask(
    num_context: int, num_queries: int, blocks: int, valid: Bool[Tensor, "B C"] | None, device: torch.device
) -> Bool[Tensor, "#B #N N"] | None:
    """Return which tokens each token of [context; queries] attends to; None means all.

    Padded context tokens are masked out. If `blocks` > 0, the queries form that many blocks, and a token attends only
    to the context and to its own block.
    """
    attn_mask = None
    if blocks:
        query_block = torch.arange(1, blocks + 1, device=device).repeat_interleave(num_queries // blocks)
        block = torch.cat([query_block.new_zeros(num_context), query_block])  # 0 is the context
        attn_mask = ((block == 0) | (block == block[:, None]))[None]
    if valid is None:
        return attn_mask
    is_token = torch.cat([valid, valid.new_ones(len(valid), num_queries)], dim=1)[:, None]
    return is_token if attn_mask is None else attn_mask & is_token


def repeat_samples(x: Tensor, repeats: int) -> Tensor:
    """Repeat each sample `repeats` times in a row: B … -> B·repeats …"""
    return x[:, None].expand(-1, repeats, *x.shape[1:]).flatten(0, 1)
