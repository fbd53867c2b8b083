"""The encoder: a stem, positions, transformer blocks, a final norm.   B batch  N tokens  E raw width  D width  P coordinates"""

from __future__ import annotations

import torch
from torch import nn

from openjepa.nn.positions import Positions, rotary, sincos
from openjepa.nn.transformer import Block
from openjepa.types import Tokens

SIZES: dict[str, dict] = {  # the paper's family; giant's hidden width is 6144
    "tiny": {"dim": 192, "depth": 12, "num_heads": 3, "mlp_ratio": 4.0},
    "small": {"dim": 384, "depth": 12, "num_heads": 6, "mlp_ratio": 4.0},
    "base": {"dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4.0},
    "large": {"dim": 1024, "depth": 24, "num_heads": 16, "mlp_ratio": 4.0},
    "huge": {"dim": 1280, "depth": 32, "num_heads": 16, "mlp_ratio": 4.0},
    "giant": {"dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 48 / 11},
}


class Encoder(nn.Module):
    """Features of every token it is shown. No class token: pool the tokens.

    The stem is a child (`patch_embed`) and sees one token at a time, so hidden patches are never embedded. In half-precision
    runs sine-cosine positions, added in fp32, keep the tokens between blocks in fp32; with rotary ones they are bf16.
    """

    def __init__(
        self,
        stem: nn.Module,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        positions: Positions = "sincos",
    ):
        super().__init__()
        self.dim, self.head, self.positions = dim, dim // num_heads, positions
        self.patch_embed = stem
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, tokens: Tokens, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        """One Tokens for each of `layers`: the final norm applied to that block's output.

        Blocks count from 0, or from the end as in Python; -1 is the encoder's output. Block outputs are normed with
        the final norm, as the paper's last-4 evaluation does. IndexError for a block that is not there.
        """
        wanted = [range(len(self.blocks))[layer] for layer in layers]
        x = self.patch_embed(tokens.x)
        turn = rotary(tokens.pos, self.head) if self.positions == "rope" else None
        if turn is None:
            x = x + sincos(tokens.pos, self.dim)

        heeds = None if tokens.valid is None else tokens.valid[:, None]
        seen: dict[int, torch.Tensor] = {}
        for depth, block in enumerate(self.blocks[: max(wanted) + 1]):
            x = block(x, heeds, turn)
            if depth in wanted:
                seen[depth] = self.norm(x)
        return tuple(Tokens(seen[depth], tokens.pos, tokens.valid) for depth in wanted)
