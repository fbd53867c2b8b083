"""Label-free metrics of features: RankMe, LiDAR, α-ReQ, uniformity.   S samples  V views  D width"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.evaluation.features import DatasetEncoder
from openjepa.nn import rank as health_module
from openjepa.nn.rank import feature_spread

SAMPLES, VIEWS = 200, 10  # of LiDAR; the paper's for I-JEPA are 1,000 and 50


def label_free_metrics(viewer: DatasetEncoder, features: Float[Tensor, "S D"], seed: int) -> dict[str, float]:
    """Every meter of this file on an encoder's pooled features; LiDAR on random crops of a few of the samples."""
    views = augmented_features(viewer, seed)
    return {
        "rankme": rankme_uncentered(features),
        "rankme_centred": health_module.rankme(features),
        "lidar": lidar(views),
        "alpha_req": alpha_req(features),
        "uniformity": uniformity(features),
        "spread": feature_spread(features),
    }


def augmented_features(viewer: DatasetEncoder, seed: int) -> Float[Tensor, "S V D"]:
    """Pooled features of `VIEWS` training crops of each of `SAMPLES` samples."""
    count = min(SAMPLES, len(viewer.data))
    index = torch.linspace(0, len(viewer.data) - 1, count).long()
    draws = [CounterRNG.of(seed, number, number * count + np.arange(count)) for number in range(VIEWS)]
    return torch.stack([viewer.encode(index, each).last.cpu() for each in draws], 1)


def rankme_uncentered(features: Float[Tensor, "S D"]) -> float:
    """RankMe as published (Garrido et al., 2023, equation 1): from 1 to min(S, D); the mean is not taken out.

    The meter of a run (`health.rankme`) takes it out. 0 where all features are nought.
    """
    values = torch.linalg.svdvals(features.double())
    if float(values.sum()) == 0:
        return 0.0
    share = values / values.sum() + 1e-7
    return float((-(share * share.log()).sum()).exp())


def lidar(views: Float[Tensor, "S V D"], delta: float = 1e-4) -> float:
    """LiDAR (Thilak et al., 2024): the rank of the discriminant that tells samples apart by several views of each.

    From 1 to min(D, S - 1): exp of the entropy of the eigenvalues of S_w^(-1/2) S_b S_w^(-1/2), S_b between samples and
    S_w within, plus δ. 0 where the features do not differ between samples, since any other rank would be noise.
    """
    samples, each, width = views.shape
    if samples < 2 or each < 2:
        raise UserError(f"LiDAR needs two samples and two views of each at least, not {samples} and {each}")
    views = views.double()
    centre = views.mean(1)
    between = centre - centre.mean(0)
    within = (views - centre[:, None]).flatten(0, 1)
    if float(between.square().sum()) <= 1e-20 * float(views.square().sum()):
        return 0.0
    spread = between.T @ between / (samples - 1)
    noise = within.T @ within / (samples * (each - 1)) + delta * torch.eye(width, dtype=torch.float64)
    root = torch.linalg.cholesky(noise)  # L⁻¹ S_b L⁻ᵀ has the same eigenvalues
    half = torch.linalg.solve_triangular(root, spread, upper=False)
    values = torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.T, upper=False)).clamp(min=0)
    share = values / values.sum() + 1e-7
    return float((-(share * share.log()).sum()).exp())


def alpha_req(features: Float[Tensor, "S D"]) -> float:
    """α-ReQ (Agrawal et al., 2022): the exponent of the decay of the covariance's eigenvalues, λ_i ∝ i^-α.

    Least squares on the logarithms, all eigenvalues above 1e-12 of the largest; 1 is called good, more is too low-dimensional, infinity is a line.
    """
    x = features.double()
    values = torch.linalg.svdvals(x - x.mean(0)).square()
    values = values[values > 1e-12 * values[0]]
    if len(values) < 2:
        return float("inf")
    place = torch.arange(1, len(values) + 1, dtype=torch.float64).log()
    place, height = place - place.mean(), values.log()
    return float(-(place * height).sum() / place.square().sum())


def uniformity(features: Float[Tensor, "S D"], t: float = 2.0, most: int = 4096) -> float:
    """Log of the mean of exp(-t ‖x - y‖²) over pairs on the sphere (Wang and Isola, 2020); 0 when all are alike, lower is more even."""
    pick = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:most]
    x = torch.nn.functional.normalize(features[pick].double(), dim=1)
    return float(torch.pdist(x).square().mul(-t).exp().mean().log())
