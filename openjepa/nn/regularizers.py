"""Anti-collapse regularizers: VICReg's variance and covariance terms, SIGReg.   B batch  E width  K slices  T points"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-4  # added to variances before the root, as in VICReg

POINTS, EXTENT = 17, 5.0  # where characteristic functions are compared, and how far out


def variance_loss(x: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
    """How far the deviation of a feature over the batch falls short of 1, mean over features (VICReg, equation 1)."""
    return F.relu(1 - (x.var(0) + EPSILON).sqrt()).mean()


def covariance_loss(x: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
    """Squared covariances between different features, summed, a feature (VICReg, equation 4)."""
    with torch.autocast(x.device.type, enabled=False):
        x = x.float() - x.float().mean(0)
        covariance = x.T @ x / (len(x) - 1)
        return (covariance.square().sum() - covariance.diagonal().square().sum()) / x.shape[1]


def sigreg(x: Float[Tensor, "B E"], slices: int, generator: torch.Generator) -> Float[Tensor, ""]:
    """How far the features are from a standard normal, along random directions: 0 when they are one.

    Source: SIGReg of LeJEPA (Balestriero and LeCun, arXiv 2511.08544): the Epps–Pulley distance between characteristic
    functions, weighted by a normal density. Differs: not multiplied by the number of samples.
    """
    axes = F.normalize(torch.randn(x.shape[1], slices, generator=generator), dim=0).to(x.device)
    t = torch.linspace(-EXTENT, EXTENT, POINTS, device=x.device)
    with torch.autocast(x.device.type, enabled=False):
        angle = (x.float() @ axes)[..., None] * t  # B K T
    wanted = (-t.square() / 2).exp()
    apart = (angle.cos().mean(0) - wanted).square() + angle.sin().mean(0).square()
    return torch.trapezoid(apart * wanted / math.sqrt(2 * math.pi), t, dim=-1).mean()
