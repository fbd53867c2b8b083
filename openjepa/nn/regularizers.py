"""Anti-collapse regularizers: VICReg's variance and covariance terms, SIGReg.

B batch  E width  K random directions  T evaluation points
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-4  # added to variances before the square root, as in VICReg

POINTS, EXTENT = 17, 5.0  # characteristic functions are compared at 17 points from -5 to 5

NODES = 32  # of the quadrature over directions


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


class VICRegTerms(NamedTuple):
    """The three terms of VICReg, not yet weighted."""

    invariance: Float[Tensor, ""]  # squared distance of the views
    variance: Float[Tensor, ""]
    covariance: Float[Tensor, ""]


def vicreg_terms(z1: Float[Tensor, "B E"], z2: Float[Tensor, "B E"]) -> VICRegTerms:
    """Compare the embeddings of two views, and the features of each. Source: VICReg, section 4; scale as its code."""
    variance = (variance_loss(z1) + variance_loss(z2)) / 2
    return VICRegTerms(F.mse_loss(z1, z2), variance, covariance_loss(z1) + covariance_loss(z2))


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


def kernel_sigreg(x: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
    """Compute the mean of SIGReg over all directions, in closed form: what `sigreg` tends to with more slices.

    Along a direction a, SIGReg is the squared maximum mean discrepancy to a standard normal with the kernel
    exp(-(a·(x - y))² / 2). Its mean over directions is a kernel of the distance |x - y| alone, with heavy tails.

    Source: KerJEPA (arXiv 2512.19605). Differs: the mean over directions is a Gauss quadrature of (a·u)² for a unit
    vector u, exact to fp32, in place of Kummer's function.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        squares = x.square().sum(1)
        distances = (squares[:, None] + squares - 2 * x @ x.T).clamp(min=0)
        between = mean_over_directions(distances / 2, x.shape[1]).mean()
        to_normal = mean_over_directions(squares / 4, x.shape[1]).mean() / math.sqrt(2)
        return between - 2 * to_normal + 1 / math.sqrt(3)


def mean_over_directions(squared: Float[Tensor, "*S"], dim: int) -> Float[Tensor, "*S"]:
    """Average exp(-squared · cos²) over the angle of two directions in `dim` dimensions."""
    return sum(weight * (-node * squared).exp() for node, weight in squared_cosines(dim))  # type: ignore[return-value]


@lru_cache
def squared_cosines(dim: int) -> tuple[tuple[float, float], ...]:
    """Return nodes and weights of a Gauss quadrature over cos² of two random directions, Beta(1/2, (dim - 1)/2).

    Source: Golub and Welsch, 1969: eigenvalues of the Jacobi matrix of the orthogonal polynomials.
    """
    if dim == 1:
        return ((1.0, 1.0),)
    a, b = (dim - 3) / 2, -0.5  # the weight (1 - x)^a (1 + x)^b on [-1, 1], with cos² = (1 + x) / 2
    k = np.arange(1, NODES)
    total = 2 * k + a + b
    diagonal = np.append((b - a) / (a + b + 2), (b**2 - a**2) / (total * (total + 2)))
    last = np.append(1.0, (k[1:] + a + b) / (total[1:] - 1))  # both are 1 + a + b at k = 1, which may be 0
    beside = np.sqrt(4 * k * (k + a) * (k + b) * last / (total**2 * (total + 1)))
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    return tuple(zip(((1 + values) / 2).tolist(), (vectors[0] ** 2).tolist(), strict=True))
