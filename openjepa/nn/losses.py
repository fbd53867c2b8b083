"""Losses between predictions and targets.   B batch  M blocks  T tokens per block  N tokens  E width"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def smooth_l1(
    predicted: Float[Tensor, "B M T E"], target: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None = None
) -> Float[Tensor, ""]:
    """Compute the Huber loss with threshold 1, averaged over all elements, as in the official code."""
    if valid is None:
        return F.smooth_l1_loss(predicted.float(), target.float())
    return mean_of_valid(F.smooth_l1_loss(predicted.float(), target.float(), reduction="none").mean(-1), valid)


def l1(
    predicted: Float[Tensor, "B M T E"], target: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None = None
) -> Float[Tensor, ""]:
    """Average absolute differences over all elements. Source: V-JEPA (arXiv 2404.08471), equation 1."""
    if valid is None:
        return F.l1_loss(predicted.float(), target.float())
    return mean_of_valid((predicted.float() - target.float()).abs().mean(-1), valid)


def squared_l2(
    predicted: Float[Tensor, "B M T E"], target: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None = None
) -> Float[Tensor, ""]:
    """Sum squared differences over a block's tokens and features; average over blocks and samples.

    Source: the I-JEPA paper, section 3.
    """
    per_token = (predicted.float() - target.float()).square().sum(-1)  # B M T
    if valid is not None:
        per_token = per_token * valid
    return per_token.sum(-1).mean()


def cosine(
    predicted: Float[Tensor, "B M T E"], target: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None = None
) -> Float[Tensor, ""]:
    """Compute 1 - cosine similarity of each token and its target, averaged over tokens.

    This is half of BYOL's loss (Grill et al., 2020, equation 2).
    """
    per_token = 1 - F.cosine_similarity(predicted.float(), target.float(), dim=-1)  # B M T
    return per_token.mean() if valid is None else mean_of_valid(per_token, valid)


def mean_squared_error(
    predicted: Float[Tensor, "B M T E"], target: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None = None
) -> Float[Tensor, ""]:
    """Average squared differences over values, tokens and samples."""
    if valid is None:
        return F.mse_loss(predicted.float(), target.float())
    return mean_of_valid((predicted.float() - target.float()).square().mean(-1), valid)


def mean_of_valid(per_token: Float[Tensor, "B M T"], valid: Bool[Tensor, "B M T"]) -> Float[Tensor, ""]:
    """Average the valid tokens of each sample, then the samples: micro-batches then give the mean of the batch."""
    return (per_token.where(valid, 0.0).sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)).mean()


LOSSES: dict[str, Callable[..., Tensor]] = {
    "smooth_l1": smooth_l1,
    "l1": l1,
    "squared_l2": squared_l2,
    "cosine": cosine,
}
