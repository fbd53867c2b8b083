"""A small network that scores which tokens to hide.   B batch  N tokens  D width  M hidden tokens"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from openjepa.core.types import Tokens
from openjepa.nn.vit import ViT


class MaskNetwork(nn.Module):
    """A narrow Vision Transformer with one output for each token, on the raw tokens."""

    def __init__(self, vit: ViT):
        super().__init__()
        self.vit = vit
        self.score = nn.Linear(vit.dim, 1)
        nn.init.zeros_(self.score.weight)  # at first all tokens are equally likely

    def forward(self, tokens: Tokens) -> Float[Tensor, "B N"]:
        """Return the score of each token: the larger, the more likely it is hidden."""
        (features,) = self.vit(tokens)
        return self.score(features.x)[..., 0].float()


def draw_order(scores: Float[Tensor, "B N"], uniform: Float[Tensor, "B N"]) -> Int[Tensor, "B N"]:
    """Draw an order of the tokens without replacement, each next one with softmax(scores) of those that are left.

    Source: Gumbel top-k (Kool et al., 2019, arXiv 1903.06059).
    """
    gumbel = -(-uniform.clamp(1e-6, 1 - 1e-6).log()).log()
    return (scores + gumbel).argsort(dim=1, descending=True)


def log_probability(scores: Float[Tensor, "B N"], hidden: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
    """Return the log of each hidden token's share of the softmax over all tokens."""
    return torch.log_softmax(scores, dim=1).gather(1, hidden)
