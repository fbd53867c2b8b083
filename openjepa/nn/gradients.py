"""Gradients of radar images that multiplicative noise does not bias.   B images  C channels  H height  W width"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

OFFSET = 0.01  # added to intensities from 0 to 1, so that a ratio of two dark sides stays bounded


def log_ratio_gradient(
    images: Float[Tensor, "B C H W"], radius: int, offset: float = OFFSET
) -> Float[Tensor, "B C H W"]:
    """Return the size of the gradient of the log intensity around each pixel.

    Across and down, it is the log of the ratio of the mean intensities on both sides of the pixel within a square of
    2 · radius + 1 pixels; both sides include the pixel's own row or column. Intensities times a constant have the same
    gradient, if `offset` is 0. The border is reflected.

    Source: SAR-JEPA (Li et al., 2024, arXiv 2311.15153), section 3.2.
    """
    channels = images.shape[1]
    padded = F.pad(images + offset, (radius,) * 4, mode="reflect")
    side = torch.ones(2 * radius + 1, device=images.device)
    before = torch.cat([side[: radius + 1], side.new_zeros(radius)])
    kernels = [torch.outer(side, before), torch.outer(side, before.flip(0))]
    kernels += [kernel.T for kernel in kernels]
    weight = torch.stack(kernels)[:, None].repeat(channels, 1, 1, 1)  # left, right, up, down of each channel
    left, right, up, down = F.conv2d(padded, weight, groups=channels).log().unflatten(1, (channels, 4)).unbind(2)
    return torch.hypot(left - right, up - down)
