"""Transforms of target features: normalize, center, standardize.   B batch  N tokens  E width"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.distributed import all_reduce_sum
from openjepa.core.types import zero_padding


def normalize_patches(raw: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
    """Normalize the values of each patch to mean 0 and variance 1 (MAE: He et al., 2022, section 4.1)."""
    return F.layer_norm(raw.float(), raw.shape[-1:], eps=1e-6)


def center(x: Float[Tensor, "B N E"], valid: Bool[Tensor, "B N"] | None = None) -> Float[Tensor, "B N E"]:
    """Subtract each sample's mean over its valid tokens."""
    if valid is None:
        return x - x.mean(1, keepdim=True)
    return x - zero_padding(x, valid).sum(1, keepdim=True) / valid.sum(1)[:, None, None].clamp(min=1)


def global_mean_var(
    x: Float[Tensor, "B N E"], valid: Bool[Tensor, "B N"] | None = None
) -> tuple[Float[Tensor, "E"], Float[Tensor, "E"]]:
    """Return each feature's mean and variance over all valid tokens of the global batch, in fp32, in two passes."""
    count = global_token_count(x, valid)
    mean = all_reduce_sum(zero_padding(x.float(), valid).sum((0, 1))) / count
    return mean, all_reduce_sum(zero_padding((x.float() - mean).square(), valid).sum((0, 1))) / count


def global_token_count(x: Float[Tensor, "B N E"], valid: Bool[Tensor, "B N"] | None) -> Float[Tensor, ""]:
    """Count the valid tokens of the global batch, 1 if it has none; the host does not wait for the result."""
    if valid is None:
        return all_reduce_sum(torch.tensor(float(x.shape[0] * x.shape[1]), device=x.device))
    return all_reduce_sum(valid.sum().float()).clamp(min=1)


def mean_target(x: Float[Tensor, "B M T E"], valid: Bool[Tensor, "B M T"] | None = None) -> Float[Tensor, "E"]:
    """Return the mean of the valid targets of a batch: what a model predicts that ignores its input."""
    if valid is None:
        return x.mean((0, 1, 2))
    return zero_padding(x.flatten(0, 1), valid.flatten(0, 1)).sum((0, 1)) / valid.sum().clamp(min=1)
