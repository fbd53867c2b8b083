"""The Vision Transformer encoder.   B batch  N tokens  E raw width  D width  P coordinates"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from openjepa.core.errors import UserError
from openjepa.core.protocols import Tokenizer
from openjepa.core.types import Keep, Tokens
from openjepa.nn.positions import Positions, rope_angles, sincos
from openjepa.nn.transformer import Block

VIT_SIZES: dict[str, dict] = {  # the sizes of the paper; giant's hidden width is 6144
    "tiny": {"dim": 192, "depth": 12, "num_heads": 3, "mlp_ratio": 4.0},
    "small": {"dim": 384, "depth": 12, "num_heads": 6, "mlp_ratio": 4.0},
    "base": {"dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4.0},
    "large": {"dim": 1024, "depth": 24, "num_heads": 16, "mlp_ratio": 4.0},
    "huge": {"dim": 1280, "depth": 32, "num_heads": 16, "mlp_ratio": 4.0},
    "giant": {"dim": 1408, "depth": 40, "num_heads": 16, "mlp_ratio": 48 / 11},
}


class ViT(nn.Module):
    """A Vision Transformer that returns features of every input token.

    There is no class token; pool the tokens instead. The tokenizer is a child (`patch_embed`); a local one maps only
    the tokens to keep, so masked patches are never embedded. In half-precision runs, sine-cosine positions are added in
    fp32 and keep the tokens between blocks in fp32; with RoPE they are bf16. Registers are learned tokens without a
    position (Darcet et al., arXiv 2309.16588): all tokens attend to them, and they are not returned.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        positions: Positions = "sincos",
        registers: int = 0,
    ):
        super().__init__()
        if registers < 0:
            raise UserError(f"--method.registers must be >= 0 (0 = no registers), got {registers}")
        self.dim, self.head_dim, self.positions, self.registers = dim, dim // num_heads, positions, registers
        self.patch_embed = tokenizer
        self.reg_token = nn.Parameter(torch.zeros(1, registers, dim)) if registers else None
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, tokens: Tokens, keep: Keep | None = None, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        """Encode all tokens, or G groups of them, as B·G samples; return the normalized output of blocks in `layers`.

        Blocks count from 0, or from the end as in Python; -1 is the encoder's output. All outputs pass the final norm,
        as in the paper's last-4 evaluation. Raises IndexError if there is no such block.
        """
        depths = [range(len(self.blocks))[layer] for layer in layers]
        tokens = embed(self.patch_embed, tokens, keep)
        (x, pos, valid, _), extra = tokens, self.registers
        if self.positions == "sincos":
            x = x + sincos(pos, self.dim)
        if self.reg_token is not None:
            x = torch.cat([self.reg_token.expand(len(x), -1, -1).to(x.dtype), x], 1)
            pos, valid = F.pad(pos, (0, 0, extra, 0)), None if valid is None else F.pad(valid, (extra, 0), value=True)

        rope = rope_angles(pos, self.head_dim) if self.positions == "rope" else None
        attn_mask = None if valid is None else valid[:, None]
        outputs: dict[int, torch.Tensor] = {}
        for depth, block in enumerate(self.blocks[: max(depths) + 1]):
            x = block(x, attn_mask, rope)
            if depth in depths:
                outputs[depth] = self.norm(x[:, extra:])
        return tuple(Tokens(outputs[depth], tokens.pos, tokens.valid) for depth in depths)


def embed(tokenizer: Tokenizer, tokens: Tokens, keep: Keep | None) -> Tokens:
    """Map raw tokens, or the groups of them to keep, to tokens of the encoder's width.

    A tokenizer that mixes neighbors never sees the others: they are 0 and count as padding.
    """
    if keep is None:
        return tokenizer(tokens)
    if tokenizer.local:
        return tokenizer(tokens.take_groups(keep))
    return tokenizer(tokens.hide_all_but(keep)).take_groups(keep.flatten_groups())
