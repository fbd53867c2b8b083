"""Label-free measures of a batch of features: RankMe and relative standard deviation.   B batch  D width"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

MIN_SAMPLES = 4  # RankMe of fewer samples says nothing


def rankme(features: Float[Tensor, "B D"]) -> float:
    """Compute RankMe: exp of the entropy of the normalized singular values, from 1 to min(B, D).

    0 if all samples have the same features; NaN for fewer than four samples.
    Source: Garrido et al., 2023, equation 1. Differs: the mean is subtracted first, because it would dominate features
    that are never negative or that share an offset from their positions.
    """
    if len(features) < MIN_SAMPLES:
        return float("nan")
    values = torch.linalg.svdvals((features - features.mean(0)).float().cpu())
    return 0.0 if float(values.sum()) < 1e-9 else effective_rank(values)


def effective_rank(values: Float[Tensor, "R"]) -> float:
    """Return exp of the entropy of singular values or eigenvalues that are scaled to sum to 1."""
    share = values / values.sum() + 1e-7
    return float((-(share * share.log()).sum()).exp())


def feature_spread(features: Float[Tensor, "B D"]) -> float:
    """Return the standard deviation over samples relative to the RMS; 0 if all samples are equal."""
    return float(features.std(0).square().mean().sqrt() / features.square().mean().sqrt().clamp(min=1e-12))
