"""Warp images and features by optical flow, and compare them at small displacements.

B samples  C channels  H height  W width  D displacements
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def pixel_grid(height: int, width: int, device: torch.device) -> Float[Tensor, "2 H W"]:
    """Return the coordinates (x, y) of each pixel."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y]).float()


def warp(second: Float[Tensor, "B C H W"], flow: Float[Tensor, "B 2 H W"]) -> Float[Tensor, "B C H W"]:
    """Return, at each pixel of the first frame, what the second has where the flow (x, y) leads; bilinear.

    With the true flow the result equals the first frame, where nothing is hidden. The border is repeated.
    """
    height, width = second.shape[-2:]
    target = pixel_grid(height, width, second.device) + flow.float()
    scale = torch.tensor([2 / max(1, width - 1), 2 / max(1, height - 1)], device=second.device).view(2, 1, 1)
    at = (target * scale - 1).movedim(1, -1)
    return F.grid_sample(second.float(), at, padding_mode="border", align_corners=True)


def stays_inside(flow: Float[Tensor, "B 2 H W"]) -> Float[Tensor, "B 1 H W"]:
    """Return 1 where the flow leads to a pixel of the second frame, else 0."""
    height, width = flow.shape[-2:]
    x, y = (pixel_grid(height, width, flow.device) + flow.float()).unbind(1)
    return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).float()[:, None]


def resize_flow(flow: Float[Tensor, "B 2 h w"], size: tuple[int, int]) -> Float[Tensor, "B 2 H W"]:
    """Resize a flow, whose unit is the pixel of its own resolution."""
    height, width = flow.shape[-2:]
    scale = torch.tensor([size[1] / width, size[0] / height], device=flow.device).view(2, 1, 1)
    return F.interpolate(flow.float(), size, mode="bilinear", align_corners=False) * scale


def correlation(
    first: Float[Tensor, "B C H W"], second: Float[Tensor, "B C H W"], radius: int
) -> Float[Tensor, "B D H W"]:
    """Return the mean product of features of the first frame and of the second, shifted by up to `radius` cells.

    D = (2 · radius + 1)², row by row, from displacement (-radius, -radius) on. Source: PWC-Net (arXiv 1709.02371).
    """
    channels, height, width = first.shape[1:]
    rows = F.pad(second, (radius,) * 4).movedim(2, 1)  # B H+2r C W+2r
    columns = torch.arange(width, device=first.device)[:, None] + torch.arange(2 * radius + 1, device=first.device)
    columns = columns.expand(len(first), height, -1, -1)
    # one matmul gives all products of two rows; a band of them is kept. Faster than a product for each displacement
    products = [first.permute(0, 2, 3, 1) @ rows[:, dy : dy + height] for dy in range(2 * radius + 1)]
    return torch.cat([each.gather(3, columns) for each in products], 3).movedim(3, 1) / channels
