"""How far features lie from those of normal samples: a normal distribution.   S samples  D width"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor


class Gaussian(NamedTuple):
    """A normal distribution that was fitted to features, by its mean and the inverse of its covariance."""

    mean: Float64[Tensor, "D"]
    precision: Float64[Tensor, "D D"]

    @classmethod
    def of(cls, x: Float[Tensor, "S D"]) -> Gaussian:
        """Fit a normal distribution; the covariance is shrunk, so that there may be fewer samples than features.

        Features are standardized before, so that the shrinkage does not depend on their units.
        """
        x = x.double()
        mean, std = x.mean(0), x.std(0, correction=0)
        std = torch.where(std > 1e-9 * std.max(), std, torch.inf)  # a constant feature says nothing
        precision = torch.linalg.pinv(shrink_covariance((x - mean) / std), hermitian=True)
        return cls(mean, precision / std / std[:, None])

    def distance(self, x: Float[Tensor, "S D"]) -> Float64[Tensor, "S"]:
        """Return the Mahalanobis distance of each row from the mean."""
        offset = x.double() - self.mean
        return ((offset @ self.precision) * offset).sum(1).clamp(min=0).sqrt()


def shrink_covariance(x: Float64[Tensor, "S D"]) -> Float64[Tensor, "D D"]:
    """Estimate the covariance of centered rows, mixed with a multiple of the identity.

    Source: Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004.
    """
    count, width = x.shape
    sample = x.T @ x / count
    scale = sample.diagonal().mean()
    identity = torch.eye(width, dtype=x.dtype)
    spread = (sample - scale * identity).square().sum()  # of the eigenvalues around their mean
    noise = (x.square().sum(1).square().sum() / count - sample.square().sum()) / count  # of the sample covariance
    weight = (noise / spread.clamp(min=1e-30)).clamp(0, 1)
    return weight * scale * identity + (1 - weight) * sample
