"""The Vision Transformer encoder.   B batch  N tokens  E raw width  D width  P coordinates"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from openjepa.core.errors import UserError
from openjepa.core.types import Tokens
from openjepa.nn.positions import Positions, rope_angles, sincos
from openjepa.nn.transformer import Block

VIT_SIZES: dict[str, dict] = {  # the paper's family; giant's hidden width is 6144
    "tiny": {"dim": 192, "depth": 12, "num_heads": 3, "mlp_ratio": 4.0},
    "small": {"dim": 384, "depth": 12, "num_heads": 6, "mlp_ratio": 4.0},
    "base": {"dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4.0},
    "large": {"dim": 1024, "depth": 24, "num_heads": 16, "mlp_ratio": 4.0},
    "huge": {"dim": 1280, "depth": 32, "num_heads": 16, "mlp_ratio": 4.0},
    "giant": {"dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 48 / 11},
}


class ViT(nn.Module):
    """Features of every token it is shown. No class token: pool the tokens.

    The stem is a child (`patch_embed`) and sees one token at a time, so hidden patches are never embedded. In half-precision
    runs sine-cosine positions, added in fp32, keep the tokens between blocks in fp32; with rotary ones they are bf16.
    Registers are learnt tokens that belong to no place (Darcet et al., arXiv 2309.16588): all attend to them, none comes out.
    """

    def __init__(
        self,
        stem: nn.Module,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        positions: Positions = "sincos",
        registers: int = 0,
    ):
        super().__init__()
        if registers < 0:
            raise UserError(f"{registers} registers are none: try --method.registers 4")
        self.dim, self.head, self.positions, self.registers = dim, dim // num_heads, positions, registers
        self.patch_embed = stem
        self.reg_token = nn.Parameter(torch.zeros(1, registers, dim)) if registers else None
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, tokens: Tokens, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        """One Tokens for each of `layers`: the final norm applied to that block's output.

        Blocks count from 0, or from the end as in Python; -1 is the encoder's output. Block outputs are normed with
        the final norm, as the paper's last-4 evaluation does. IndexError for a block that is not there.
        """
        wanted = [range(len(self.blocks))[layer] for layer in layers]
        x, pos, valid, extra = self.patch_embed(tokens.x), tokens.pos, tokens.valid, self.registers
        if self.positions == "sincos":
            x = x + sincos(pos, self.dim)
        if self.reg_token is not None:
            x = torch.cat([self.reg_token.expand(len(x), -1, -1).to(x.dtype), x], 1)
            pos, valid = F.pad(pos, (0, 0, extra, 0)), None if valid is None else F.pad(valid, (extra, 0), value=True)

        turn = rope_angles(pos, self.head) if self.positions == "rope" else None
        heeds = None if valid is None else valid[:, None]
        seen: dict[int, torch.Tensor] = {}
        for depth, block in enumerate(self.blocks[: max(wanted) + 1]):
            x = block(x, heeds, turn)
            if depth in wanted:
                seen[depth] = self.norm(x[:, extra:])
        return tuple(Tokens(seen[depth], tokens.pos, tokens.valid) for depth in wanted)
