"""Compute the principal components of patch features as colors.   B images  N patches  D features"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.viz.inputs import MIN_REFERENCE


class Basis(NamedTuple):
    """The first three principal components of patch features and the range of the central 96 % along each."""

    mean: Float[Tensor, "#N D"]  # subtracted first: the mean at each position, or over all patches
    axes: Float[Tensor, "D 3"]
    low: Float[Tensor, "3"]
    high: Float[Tensor, "3"]
    share: float  # fraction of the variance that the three components explain

    @classmethod
    def of(cls, x: Float[Tensor, "B N D"], by_position: bool | None = None) -> Basis:
        """Compute the basis; by default the mean at each position is subtracted if there are MIN_REFERENCE images.

        The mean at a position is what the positional embedding leaves in every image's features; in small encoders it
        would dominate the colors. Axes point to where the third moment is positive, so that the same features get the
        same colors.
        """
        by_position = len(x) >= MIN_REFERENCE if by_position is None else by_position
        mean = x.mean(0) if by_position else x.mean((0, 1))[None]
        flat = (x - mean).flatten(0, 1).double()
        variance, vectors = torch.linalg.eigh(flat.T @ flat)
        axes = vectors[:, -3:].flip(1)
        coordinates = flat @ axes
        sign = torch.where(coordinates.pow(3).sum(0) < 0, -1.0, 1.0)
        axes, coordinates = axes * sign, coordinates * sign
        low, high = (torch.from_numpy(np.percentile(coordinates.numpy(), each, axis=0)) for each in (2, 98))
        share = float(variance[-3:].sum() / variance.sum().clamp(min=1e-30))
        return cls(mean, axes.float(), low.float(), high.float(), share)

    def project(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N 3"]:
        """Compute coordinates along the axes."""
        return (x - self.mean) @ self.axes

    def colors(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N 3"]:
        """Map features to colors in [0, 1]: the central 96 % of the basis images span the whole range."""
        span = (self.high - self.low).clamp(min=1e-12)
        return ((self.project(x) - self.low) / span).clamp(0, 1)
