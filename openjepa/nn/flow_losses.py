"""Losses of optical flow without true flow.   B pairs  C channels  H height  W width"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

STRUCTURE, L1, L2 = 0.85, 0.1, 0.05  # shares of the photometric terms
EDGE_WEIGHT = 10.0  # how fast smoothness fades with the contrast of images in 0 to 1


def photometric(
    image: Float[Tensor, "B C H W"], warped: Float[Tensor, "B C H W"], inside: Float[Tensor, "B 1 H W"]
) -> Float[Tensor, ""]:
    """Compare an image in 0 to 1 with the other frame, warped to it, where the flow stays inside: L1, L2 and SSIM.

    Source: MC-JEPA (arXiv 2307.12698), equation 3. Differs: the shares are ours; the paper does not print them.
    """
    difference = image - warped
    terms = L1 * difference.abs() + L2 * difference.square() + STRUCTURE * (1 - structure(image, warped)) / 2
    per_pair = (terms * inside).sum((1, 2, 3)) / (inside.sum((1, 2, 3)) * image.shape[1]).clamp(min=1)
    return per_pair.mean()


def structure(a: Float[Tensor, "B C H W"], b: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Return the structural similarity of 3×3 windows, 1 where they are equal (Wang et al., 2004)."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (1,) * 4, mode="reflect"), 3, 1)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b, covariance = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2, mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return above / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def smoothness(flow: Float[Tensor, "B 2 H W"], image: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """Penalize changes of the flow, less where the image has an edge.

    Source: edge-aware smoothness of first order (Jonschkowski et al., 2020, arXiv 2006.04902, equation 3).
    """
    total = flow.new_zeros(())
    for axis in (-1, -2):
        change = flow.diff(dim=axis).abs()
        edges = (-EDGE_WEIGHT * image.diff(dim=axis).abs().mean(1, keepdim=True)).exp()
        total = total + (change * edges).mean()
    return total
