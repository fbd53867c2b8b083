"""The predictor: maps context tokens and target positions to predicted target features.

B batch  C context tokens  M target blocks  T tokens per block  P coordinates  D width  E output width  A parameters
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.types import Tokens
from openjepa.nn.conditioning import Conditioner
from openjepa.nn.cpu_kernels import Linear
from openjepa.nn.init import Init, initialize
from openjepa.nn.positions import Positions, Side, rotary_angles, sincos
from openjepa.nn.transformer import Block
from openjepa.nn.vit import ViTConfig, check_heads


@dataclass(frozen=True)
class PredictorConfig:
    """Sizes and first weights of a predictor; its positions are those of the encoder."""

    dim: int = 384  # width; less than the encoder's makes it a bottleneck (the small recipes: half)
    depth: int = 6  # number of transformer blocks; I-JEPA: 6 for ViT-B, 12 for ViT-L and H
    num_heads: int = 0  # attention heads; 0: as many as the encoder, as in the official code
    # weight matrices. paper: std 0.02; scaled: std sqrt(2 / (fan_in + fan_out)), better for narrow networks, short runs
    init: Init = "paper"
    # learned queries. 1: one for all masks; n: mask k of a sample has query k mod n, and all start at 0 (V-JEPA: 2, for
    # its short-range and long-range masks)
    mask_tokens: int = 1

    def build(self, encoder: ViTConfig, output_dim: int, conditioner: Conditioner | None = None) -> Predictor:
        """Build the network with torch's default initialization, to initialize or to load weights into."""
        heads = self.num_heads or encoder.num_heads
        return Predictor(
            encoder.dim,
            output_dim,
            self.dim,
            self.depth,
            heads,
            positions=encoder.positions,
            mask_tokens=self.mask_tokens,
            conditioner=conditioner,
        )

    def initialize(self, network: Predictor, generator: torch.Generator) -> None:
        """Give the network its first weights."""
        initialize(network, generator, self.init)
        if self.mask_tokens > 1:
            nn.init.zeros_(network.mask_token)

    def check(self, coordinates: int, flag: str, encoder: ViTConfig) -> None:
        """Raise UserError unless the width divides into heads and has room for positions."""
        check_heads(f"{flag}.dim", self.dim, self.num_heads or encoder.num_heads, encoder.positions, coordinates)

    def check_mask_tokens(self, flag: str, masks: Any) -> None:
        """Raise UserError unless there is a mask token, and a mask of a sample for each."""
        if self.mask_tokens < 1:
            raise UserError(f"{flag}.mask-tokens must be >= 1, got {self.mask_tokens}")
        if self.mask_tokens > 1 and self.mask_tokens > masks.masks_per_sample:
            raise UserError(
                f"{flag}.mask-tokens {self.mask_tokens} is more than the masks of a sample, {masks.masks_per_sample}: "
                f"try {flag}.mask-tokens {masks.masks_per_sample}"
            )

    def describe(self) -> str:
        """Return the sizes as text."""
        return f"{self.dim}×{self.depth}"


class Predictor(nn.Module):
    """A narrow transformer over [context tokens; queries].

    A query is the mask token plus the embedding of a target position; with `rope_vjepa2`, rotation alone tells queries
    apart. Every target block is a sequence of its own with a copy of the context (I-JEPA paper, section 3), so target
    blocks never see each other.
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
        mask_tokens: int = 1,
        conditioner: Conditioner | None = None,
    ):
        super().__init__()
        self.dim, self.head_dim = dim, dim // num_heads
        self.positions: Positions = positions
        self.embed = Linear(input_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(mask_tokens, 1, dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.proj = Linear(dim, output_dim)
        self.conditioner = conditioner or Conditioner()

    def forward(
        self,
        context: Tokens,
        where: Float[Tensor, "B M T P"],
        conditions: Float[Tensor, "B A"] | None = None,
        valid: Bool[Tensor, "B M T"] | None = None,
        mask_sets: tuple[int, ...] = (0,),
    ) -> Float[Tensor, "B M T E"]:
        """Predict the features at every target position `where`; `valid` is False on padded targets.

        `mask_sets` are the numbers of the masks that a sample has here: contexts 0, G, 2G … belong to the first of G.
        `conditions` are the action, for the conditioner; None: all 0, the action that changes nothing. Context tokens
        get their positional embedding a second time here, as in the official code.
        """
        batch, blocks, block_tokens, _ = where.shape
        query_pos = where.flatten(0, 1)
        action = where.new_zeros(batch, self.conditioner.action_dim) if conditions is None else conditions
        context = self.conditioner.extend_context(context, action)
        embedded, query = self.embed(context.x), self.mask_tokens_of(batch, blocks, mask_sets)
        if self.positions != "rope_vjepa2":  # with "rope", too: without sincos, its queries would all start equal
            embedded, query = embedded + sincos(context.pos, self.dim), query + sincos(query_pos, self.dim)
        embedded, query = repeat_samples(embedded, blocks), query.expand(batch * blocks, block_tokens, -1)
        query = self.conditioner.condition_queries(query, repeat_samples(action, blocks))
        rope = None
        if self.positions != "sincos":
            pos = torch.cat([repeat_samples(context.pos, blocks), query_pos], dim=1)
            rope = rotary_angles(self.positions, pos, self.head_dim)

        x = torch.cat([embedded, query.to(embedded.dtype)], dim=1)  # B·M C+T D
        attn_mask = attention_mask(context, where, valid)
        for block in self.blocks:
            x = block(x, attn_mask, rope)

        x = self.proj(self.norm(x[:, embedded.shape[1] :]))
        return x.view(batch, blocks, block_tokens, -1)

    def mask_tokens_of(self, batch: Side, blocks: int, mask_sets: tuple[int, ...]) -> Float[Tensor, "R 1 D"]:
        """Return the mask token of each of R = B · M sequences; R = 1 if all have the same."""
        count = len(self.mask_token)
        if count == 1:
            return self.mask_token
        tokens = torch.stack([self.mask_token[number % count] for number in mask_sets])  # G 1 D
        return repeat_samples(tokens.repeat(batch // len(mask_sets), 1, 1), blocks)


def attention_mask(
    context: Tokens, where: Float[Tensor, "B M T P"], valid: Bool[Tensor, "B M T"] | None
) -> Bool[Tensor, "R 1 N"] | None:
    """Return which tokens of [context; queries] are attended to, in each of R = B · M sequences; None: all."""
    if context.valid is None and valid is None:
        return None
    in_context = context.x.new_ones(context.x.shape[:2], dtype=torch.bool) if context.valid is None else context.valid
    in_target = where.new_ones(where.shape[:3], dtype=torch.bool) if valid is None else valid
    return torch.cat([repeat_samples(in_context, where.shape[1]), in_target.flatten(0, 1)], dim=1)[:, None]


def repeat_samples(x: Tensor, repeats: int) -> Tensor:
    """Repeat each sample `repeats` times in a row: B … -> B·repeats …"""
    return x[:, None].expand(-1, repeats, *x.shape[1:]).flatten(0, 1)
