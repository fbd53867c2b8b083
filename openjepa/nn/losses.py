"""Losses between predictions and targets.   B batch  M blocks  T tokens per block  N tokens  E width"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def smooth_l1(
    predicted: Float[Tensor, "B M T E"], target: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None = None
) -> Float[Tensor, ""]:
    """Huber's loss with its corner at 1, the mean over every element: as released."""
    if valid is None:
        return F.smooth_l1_loss(predicted.float(), target.float())
    each = F.smooth_l1_loss(predicted.float(), target.float(), reduction="none").mean(-1)
    return (each * valid).sum() / valid.sum().clamp(min=1)


def squared_l2(
    predicted: Float[Tensor, "B M T E"], target: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None = None
) -> Float[Tensor, ""]:
    """Squared distances summed over a block's tokens and features, the mean over blocks and samples: the paper's section 3."""
    each = (predicted.float() - target.float()).square().sum(-1)  # B M T
    if valid is not None:
        each = each * valid
    return each.sum(-1).mean()


def cosine(
    predicted: Float[Tensor, "B M T E"], target: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None = None
) -> Float[Tensor, ""]:
    """1 less the cosine between a token and its target, the mean over tokens: half of BYOL's (Grill et al., 2020, equation 2)."""
    each = 1 - F.cosine_similarity(predicted.float(), target.float(), dim=-1)  # B M T
    return each.mean() if valid is None else (each * valid).sum() / valid.sum().clamp(min=1)


LOSSES: dict[str, Callable[..., Tensor]] = {"smooth_l1": smooth_l1, "squared_l2": squared_l2, "cosine": cosine}
