"""A transformer that predicts the next latent from all before, with their actions.

B batch  T steps  N cells  D width of a latent  A action's width  E width of the transformer
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openjepa.nn.positions import grid_positions, vjepa2_rope_angles
from openjepa.nn.transformer import Block


@dataclass(frozen=True)
class BlockCausalConfig:
    """Sizes of a block-causal transformer."""

    dim: int = 128
    depth: int = 4
    num_heads: int = 4
    mlp_ratio: float = 4.0


class BlockCausal(nn.Module):
    """At each step there are an action token and a token for each cell; they see those of this step and of all before.

    Cells are rotated by row, column and time (3-D RoPE), actions by time alone. Predictions are normalized.
    Source: V-JEPA 2-AC (arXiv 2506.09985, section 3). Differs: no token for the state of a robot.
    """

    def __init__(self, config: BlockCausalConfig, dim: int, action_dim: int, cells: tuple[int, int]):
        super().__init__()
        self.cells, self.head_dim = cells, config.dim // config.num_heads
        self.embed, self.embed_action = nn.Linear(dim, config.dim), nn.Linear(action_dim, config.dim)
        self.blocks = nn.ModuleList(Block(config.dim, config.num_heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm, self.out = nn.LayerNorm(config.dim, eps=1e-6), nn.Linear(config.dim, dim)

    def forward(self, states: Float[Tensor, "B T N D"], actions: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        """Return the latents after each action."""
        steps, count = states.shape[1], states.shape[2] + 1
        x = torch.cat([self.embed_action(actions)[:, :, None], self.embed(states)], 2).flatten(1, 2)
        rope = vjepa2_rope_angles(self.positions(steps).to(x.device)[None], self.head_dim)
        mask = block_causal_mask(steps, count).to(x.device)[None]
        for block in self.blocks:
            x = block(x, mask, rope)
        x = self.out(self.norm(x)).unflatten(1, (steps, count))[:, :, 1:]
        return F.layer_norm(x, x.shape[-1:])

    def positions(self, steps: int) -> Float[Tensor, "M 3"]:
        """Return column, row and time of each token; an action is at the first cell of its step."""
        cells = grid_positions(steps, *self.cells).unflatten(0, (steps, -1))
        action = torch.cat([torch.zeros(steps, 1, 2), cells[:, :1, 2:]], 2)
        return torch.cat([action, cells], 1).flatten(0, 1)


def block_causal_mask(steps: int, count: int) -> Bool[Tensor, "M M"]:
    """Return which tokens see which: those of the same step and of earlier ones, with `count` tokens a step."""
    step = torch.arange(steps).repeat_interleave(count)
    return step[:, None] >= step
