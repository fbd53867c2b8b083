"""Tell a predictor which action leads from the source to the target: by features, or by tokens.

B samples  C context tokens  T queries  D encoder width  E predictor width  A parameters of an action
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.types import Tokens

Conditioning = Literal["feature", "sequence", "none"]


class Conditioner(nn.Module):
    """A part of a predictor that adds the action to its queries or to its context; by default to neither."""

    def __init__(self, action_dim: int = 0):
        super().__init__()
        self.action_dim = action_dim  # A; 0: it ignores the action

    def extend_context(self, context: Tokens, action: Float[Tensor, "B A"]) -> Tokens:
        return context

    def condition_queries(self, query: Float[Tensor, "B T E"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B T E"]:
        return query


class FeatureConditioner(Conditioner):
    """Concatenate the action to each query and map both by an MLP of three layers. Source: IWM, section 3.2."""

    def __init__(self, dim: int, action_dim: int):
        super().__init__(action_dim)
        widths = dim + action_dim, dim, dim
        layers = [layer for width in widths for layer in (nn.Linear(width, dim), nn.GELU())]
        self.mlp = nn.Sequential(*layers[:-1])

    def condition_queries(self, query: Float[Tensor, "B T E"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B T E"]:
        actions = action[:, None].expand(-1, query.shape[1], -1).to(query.dtype)
        return self.mlp(torch.cat([query, actions], -1))


class SequenceConditioner(Conditioner):
    """Give each parameter of the action a context token, by a linear map of its own. Source: IWM, section 3.2."""

    def __init__(self, dim: int, action_dim: int):
        super().__init__(action_dim)
        self.weight = nn.Parameter(torch.zeros(action_dim, dim))
        self.bias = nn.Parameter(torch.zeros(action_dim, dim))

    def extend_context(self, context: Tokens, action: Float[Tensor, "B A"]) -> Tokens:
        tokens = (action[..., None] * self.weight + self.bias).to(context.x.dtype)  # B A D
        pos = context.pos.new_zeros(*tokens.shape[:2], context.pos.shape[-1])
        valid = context.valid
        if valid is not None:
            valid = torch.cat([valid, valid.new_ones(tokens.shape[:2])], 1)
        return Tokens(torch.cat([context.x, tokens], 1), torch.cat([context.pos, pos], 1), valid)


def build_conditioner(kind: Conditioning, encoder_dim: int, predictor_dim: int, action_dim: int) -> Conditioner:
    """Build the conditioner of this kind with torch's default initialization."""
    if kind == "feature":
        return FeatureConditioner(predictor_dim, action_dim)
    return SequenceConditioner(encoder_dim, action_dim) if kind == "sequence" else Conditioner()
