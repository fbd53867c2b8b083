"""Label-free metrics of features: ranks, α-ReQ, uniformity, instance retrieval.   S samples  V views  D width"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.evaluation.features import DatasetEncoder
from openjepa.nn.rank import effective_rank, feature_spread, rankme

SAMPLES, VIEWS = 200, 10  # for LiDAR; its paper uses 1,000 and 50 for I-JEPA


def label_free_metrics(data: DatasetEncoder, features: Float[Tensor, "S D"], seed: int) -> dict[str, float]:
    """Compute every metric of this file on pooled features; LiDAR and retrieval on crops of `SAMPLES` of them."""
    views = augmented_features(data, seed)
    return {
        "rankme": rankme_uncentered(features),
        "rankme_centered": rankme(features),
        "lidar": lidar(views),
        "alpha_req": alpha_req(features),
        "uniformity": uniformity(features),
        "spread": feature_spread(features),
        "instance_retrieval": instance_retrieval(views),
    }


def augmented_features(data: DatasetEncoder, seed: int) -> Float[Tensor, "S V D"]:
    """Compute pooled features of `VIEWS` training crops of each of `SAMPLES` samples."""
    count = min(SAMPLES, len(data.data))
    index = torch.linspace(0, len(data.data) - 1, count).long()
    rngs = [CounterRNG.of(seed, number, number * count + np.arange(count)) for number in range(VIEWS)]
    return torch.stack([data.encode(index, rng).last.cpu() for rng in rngs], 1)


def rankme_uncentered(features: Float[Tensor, "S D"]) -> float:
    """Compute RankMe as published (Garrido et al., 2023, equation 1), without centering: 1 to min(S, D).

    The metric that a run logs, `nn.rank.rankme`, centers the features first. 0 if all features are 0.
    """
    values = torch.linalg.svdvals(features.double())
    return 0.0 if float(values.sum()) == 0 else effective_rank(values)


def lidar(views: Float[Tensor, "S V D"], delta: float = 1e-4) -> float:
    """Compute LiDAR (Thilak et al., 2024): the effective rank of the discriminant of samples from several views.

    1 to min(D, S - 1): exp of the entropy of the eigenvalues of S_w^(-1/2) S_b S_w^(-1/2), where S_b is the covariance
    between samples and S_w that within samples plus δ. 0 if the features do not differ between samples, as any other
    rank would be noise. Raises UserError with fewer than two samples or views.
    """
    samples, count, width = views.shape
    if samples < 2 or count < 2:
        raise UserError(f"LiDAR needs at least 2 samples and 2 views per sample, got {samples} and {count}")
    views = views.double()
    center = views.mean(1)
    between = center - center.mean(0)
    within = (views - center[:, None]).flatten(0, 1)
    if float(between.square().sum()) <= 1e-20 * float(views.square().sum()):
        return 0.0
    spread = between.T @ between / (samples - 1)
    noise = within.T @ within / (samples * (count - 1)) + delta * torch.eye(width, dtype=torch.float64)
    root = torch.linalg.cholesky(noise)  # L⁻¹ S_b L⁻ᵀ has the same eigenvalues
    half = torch.linalg.solve_triangular(root, spread, upper=False)
    values = torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.T, upper=False)).clamp(min=0)
    return effective_rank(values)


def alpha_req(features: Float[Tensor, "S D"]) -> float:
    """Compute α-ReQ (Agrawal et al., 2022): the exponent of the decay of the covariance's eigenvalues, λ_i ∝ i^-α.

    Least squares on the logarithms of all eigenvalues above 1e-12 of the largest. About 1 is good, larger means too few
    dimensions; infinity if the features lie on a line.
    """
    x = features.double()
    values = torch.linalg.svdvals(x - x.mean(0)).square()
    values = values[values > 1e-12 * values[0]]
    if len(values) < 2:
        return float("inf")
    log_rank = torch.arange(1, len(values) + 1, dtype=torch.float64).log()
    log_rank, log_value = log_rank - log_rank.mean(), values.log()
    return float(-(log_rank * log_value).sum() / log_rank.square().sum())


def uniformity(features: Float[Tensor, "S D"], t: float = 2.0, limit: int = 4096) -> float:
    """Compute the log of the mean of exp(-t ‖x - y‖²) over pairs of unit vectors (Wang and Isola, 2020).

    0 if all features are equal; lower is more uniform. Uses at most `limit` samples.
    """
    pick = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))[:limit]
    x = torch.nn.functional.normalize(features[pick].double(), dim=1)
    return float(torch.pdist(x).square().mul(-t).exp().mean().log())


def instance_retrieval(views: Float[Tensor, "S V D"]) -> float:
    """Return the share of crops that find their own sample: whose nearest crop is of it, among one crop of each sample.

    By cosine, the mean removed. 1 is best, chance is 1 / S. Features that have many dimensions but say nothing of their
    sample, which RankMe cannot tell from good ones, are at chance.
    """
    x = views.double()
    x = torch.nn.functional.normalize(x - x.mean((0, 1)), dim=2)
    nearest = [(x[:, view] @ x[:, view - 1].T).argmax(1) for view in range(x.shape[1])]
    return float((torch.stack(nearest) == torch.arange(len(x))).double().mean())
