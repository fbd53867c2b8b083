"""Label-free measures of a batch of features: RankMe and relative standard deviation.   B batch  D width"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

MIN_SAMPLES = 4  # samples that directions are counted of


def rankme(features: Float[Tensor, "B D"]) -> float:
    """RankMe (Garrido et al., 2023, equation 1): exp of the entropy of the singular values, from 1 to min(B, D).

    0 where all samples have the same features, not a number of fewer than four samples, of which it says nothing. Differs: the mean is taken out first, since of features that are never
    negative, or that share a position's imprint, it is all that one would see.
    """
    if len(features) < MIN_SAMPLES:
        return float("nan")
    values = torch.linalg.svdvals((features - features.mean(0)).float().cpu())
    if float(values.sum()) < 1e-9:
        return 0.0
    share = values / values.sum() + 1e-7
    return float((-(share * share.log()).sum()).exp())


def feature_spread(features: Float[Tensor, "B D"]) -> float:
    """Deviation of a feature over the samples, as a share of the features' size: 0 when all samples look alike."""
    return float(features.std(0).square().mean().sqrt() / features.square().mean().sqrt().clamp(min=1e-12))
