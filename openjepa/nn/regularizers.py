"""Anti-collapse regularizers: VICReg's variance and covariance terms, SIGReg.

B batch  E width  K random directions  T evaluation points
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-4  # added to variances before the square root, as in VICReg

POINTS, EXTENT = 17, 5.0  # characteristic functions are compared at 17 points from -5 to 5


def variance_loss(x: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
    """Compute how far each feature's standard deviation over the batch is below 1, averaged over features.

    Source: VICReg, equation 1.
    """
    return F.relu(1 - (x.var(0) + EPSILON).sqrt()).mean()


def covariance_loss(x: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
    """Sum the squared covariances between different features and divide by the number of features.

    Source: VICReg, equation 4.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.float() - x.float().mean(0)
        covariance = x.T @ x / (len(x) - 1)
        return (covariance.square().sum() - covariance.diagonal().square().sum()) / x.shape[1]


def sigreg(x: Float[Tensor, "B E"], slices: int, generator: torch.Generator) -> Float[Tensor, ""]:
    """Measure the distance of the features to a standard normal along `slices` random directions.

    Source: SIGReg of LeJEPA (Balestriero and LeCun, arXiv 2511.08544): the Epps–Pulley distance between characteristic
    functions, weighted by a normal density. Differs: not multiplied by the number of samples.
    """
    axes = F.normalize(torch.randn(x.shape[1], slices, generator=generator), dim=0).to(x.device)
    t = torch.linspace(-EXTENT, EXTENT, POINTS, device=x.device)
    with torch.autocast(x.device.type, enabled=False):
        angle = (x.float() @ axes)[..., None] * t  # B K T
    normal = (-t.square() / 2).exp()  # characteristic function of the standard normal
    distance = (angle.cos().mean(0) - normal).square() + angle.sin().mean(0).square()
    return torch.trapezoid(distance * normal / math.sqrt(2 * math.pi), t, dim=-1).mean()
