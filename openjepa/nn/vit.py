"""The Vision Transformer encoder.   B batch  N tokens  E raw width  D width  P coordinates"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from openjepa.core.errors import UserError
from openjepa.core.protocols import Encoder, Tokenizer
from openjepa.core.types import Keep, Tokens
from openjepa.nn.init import Init, initialize, scale_stem
from openjepa.nn.positions import Positions, rope_frequency_count, rotary_angles, sincos, sincos_frequency_count
from openjepa.nn.transformer import Block

VIT_SIZES: dict[str, dict] = {  # the sizes of the paper; giant's hidden width is 6144
    "tiny": {"dim": 192, "depth": 12, "num_heads": 3, "mlp_ratio": 4.0},
    "small": {"dim": 384, "depth": 12, "num_heads": 6, "mlp_ratio": 4.0},
    "base": {"dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4.0},
    "large": {"dim": 1024, "depth": 24, "num_heads": 16, "mlp_ratio": 4.0},
    "huge": {"dim": 1280, "depth": 32, "num_heads": 16, "mlp_ratio": 4.0},
    "giant": {"dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 48 / 11},
}


@dataclass(frozen=True)
class ViTConfig:
    """Sizes, positions and first weights of a Vision Transformer."""

    dim: int = 384  # width: 192 ViT-Ti, 384 ViT-S, 768 ViT-B, 1024 ViT-L, 1280 ViT-H
    depth: int = 12  # number of transformer blocks
    num_heads: int = 6  # attention heads; must divide dim (usually dim / 64)
    mlp_ratio: float = 4.0  # hidden width of the MLPs, as a multiple of dim
    # sincos: fixed embedding added to the tokens (official code); rope: rotary embedding in every attention layer;
    # rope_vjepa2: that of V-JEPA 2, for any number of axes, without an embedding added in the predictor
    positions: Positions = "sincos"
    # weight matrices. paper: std 0.02; scaled: std sqrt(2 / (fan_in + fan_out)), better for narrow encoders, short runs
    init: Init = "paper"
    # patch embedding. paper: std 0.02; scaled: whitened patches give tokens of unit variance, better for small patches
    stem_init: Literal["paper", "scaled"] = "paper"

    def build(self, tokenizer: Tokenizer) -> ViT:
        """Build the network with torch's default initialization, to initialize or to load weights into."""
        return ViT(tokenizer, self.dim, self.depth, self.num_heads, self.mlp_ratio, self.positions)

    def initialize(self, network: ViT, generator: torch.Generator, token_dim: int) -> None:
        """Give the network its first weights; `token_dim` is the width of a raw token."""
        initialize(network, generator, self.init)
        if self.stem_init == "scaled":
            scale_stem(network.patch_embed, token_dim)

    def check(self, coordinates: int, flag: str) -> None:
        """Raise UserError unless the width divides into heads and has room for positions."""
        check_heads(f"{flag}.dim", self.dim, self.num_heads, self.positions, coordinates)

    def describe(self) -> str:
        """Return the sizes as text."""
        return f"width {self.dim}, depth {self.depth}, {self.num_heads} heads"


def check_heads(flag: str, dim: int, heads: int, positions: Positions, coordinates: int) -> None:
    """Raise UserError unless the width divides into heads and has room for positions with this many coordinates."""
    if dim % heads:
        unit = math.lcm(heads, 2 * coordinates)  # of sine-cosine positions: a sine and a cosine per coordinate
        raise UserError(
            f"{flag} must be a multiple of its {heads} attention heads, got {dim}: "
            f"try {flag} {dim // unit * unit or unit}"
        )
    if positions == "sincos":
        sincos_frequency_count(dim, coordinates)
    else:
        rope_frequency_count(dim // heads, coordinates)


class ViT(Encoder):
    """A Vision Transformer that returns features of every input token.

    There is no class token; pool the tokens instead. The tokenizer is a child (`patch_embed`); a local one maps only
    the tokens to keep, so masked patches are never embedded. In half-precision runs, sine-cosine positions are added in
    fp32 and keep the tokens between blocks in fp32; with RoPE they are bf16.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        positions: Positions = "sincos",
    ):
        super().__init__()
        self.dim, self.depth, self.head_dim = dim, depth, dim // num_heads
        self.positions: Positions = positions
        self.patch_embed = tokenizer
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, tokens: Tokens, keep: Keep | None = None, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        """Encode all tokens, or G groups of them, as B·G samples; return the normalized output of blocks in `layers`.

        Blocks count from 0, or from the end as in Python; -1 is the encoder's output. All outputs pass the final norm,
        as in the paper's last-4 evaluation. Raises IndexError if there is no such block.
        """
        depths = [range(len(self.blocks))[layer] for layer in layers]
        tokens = embed(self.patch_embed, tokens, keep)
        if self.positions == "sincos":
            tokens = tokens._replace(x=tokens.x + sincos(tokens.pos, self.dim))
        outputs = self.run_blocks(tokens, depths)
        return tuple(tokens._replace(x=outputs[depth], edges=None) for depth in depths)

    def run_blocks(self, tokens: Tokens, depths: list[int]) -> dict[int, torch.Tensor]:
        """Pass tokens through the blocks; return the normalized output of those in `depths`."""
        rope = rotary_angles(self.positions, tokens.pos, self.head_dim)
        attn_mask = None if tokens.valid is None else tokens.valid[:, None]
        x, outputs = tokens.x, {}
        for depth, block in enumerate(self.blocks[: max(depths) + 1]):
            x = block(x, attn_mask, rope)
            if depth in depths:
                outputs[depth] = self.norm(x)
        return outputs


def embed(tokenizer: Tokenizer, tokens: Tokens, keep: Keep | None) -> Tokens:
    """Map raw tokens, or the groups of them to keep, to tokens of the encoder's width.

    A tokenizer that mixes neighbors never sees the others: they are 0 and count as padding.
    """
    if keep is None:
        return tokenizer(tokens)
    if tokenizer.local:
        return tokenizer(tokens.take_groups(keep))
    return tokenizer(tokens.hide_all_but(keep)).take_groups(keep.flatten_groups())
