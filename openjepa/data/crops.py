"""Choose random and evaluation crops, and resample them.   B batch  C channels  H height  W width"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor

from openjepa.core.options import EvalCrop
from openjepa.core.rng import CounterRNG


class Crops(NamedTuple):
    """A crop box for each image, in its pixels, and whether to mirror it."""

    top: Float[Tensor, "B"]
    left: Float[Tensor, "B"]
    height: Float[Tensor, "B"]
    width: Float[Tensor, "B"]
    flip: Tensor

    def box(self, row: int) -> tuple[float, float, float, float]:
        """Return (left, top, right, bottom), as Pillow takes a box."""
        left, top = float(self.left[row]), float(self.top[row])
        return left, top, left + float(self.width[row]), top + float(self.height[row])

    def moved(self, top: Float[Tensor, "B"], left: Float[Tensor, "B"]) -> Crops:
        """Return the same boxes, further down and to the right by these pixels."""
        return self._replace(top=self.top + top, left=self.left + left)


def random_crops(
    scale: tuple[float, float],
    aspect_range: tuple[float, float],
    flip: bool,
    height: Float[Tensor, "B"],
    width: Float[Tensor, "B"],
    rng: CounterRNG,
) -> Crops:
    """Draw crop boxes distributed as in torchvision's RandomResizedCrop.

    Ten tries of scale and aspect; if no box fits, the largest central box within the aspect range.
    """
    u = rng.uniform("crop", 10, 2)
    area = height * width
    target_area = area[:, None] * (scale[0] + u[..., 0] * (scale[1] - scale[0]))
    low, high = math.log(aspect_range[0]), math.log(aspect_range[1])
    aspect = torch.exp(low + u[..., 1] * (high - low))
    w, h = (target_area * aspect).sqrt().round(), (target_area / aspect).sqrt().round()
    fits = (w > 0) & (h > 0) & (w <= width[:, None]) & (h <= height[:, None])
    first_fit = fits.to(torch.uint8).argmax(1, keepdim=True)
    w, h = w.gather(1, first_fit)[:, 0], h.gather(1, first_fit)[:, 0]

    ratio = (width / height).clamp(*aspect_range)
    no_fit = ~fits.any(1)
    w = torch.where(no_fit, torch.minimum(width, (height * ratio).round()), w)
    h = torch.where(no_fit, torch.minimum(height, (width / ratio).round()), h)
    offset = rng.uniform("crop place", 2)
    top = torch.where(no_fit, ((height - h) / 2).round(), (offset[:, 0] * (height - h + 1)).floor())
    left = torch.where(no_fit, ((width - w) / 2).round(), (offset[:, 1] * (width - w + 1)).floor())
    return Crops(top, left, h, w, (rng.uniform("flip") < 0.5) & flip)


def center_crops(size: tuple[int, int], height: Float[Tensor, "B"], width: Float[Tensor, "B"], fit: EvalCrop) -> Crops:
    """Return the boxes of the evaluation views.

    "crop": the largest central box with the view's aspect ratio. "margin": the central 7/8 of that box, as when an
    image is resized to 256 and cropped to 224. "squash": the whole image, whatever its aspect ratio.
    """
    aspect, share = size[1] / size[0], 7 / 8 if fit == "margin" else 1.0
    w, h = share * torch.minimum(width, height * aspect), share * torch.minimum(height, width / aspect)
    if fit == "squash":
        w, h = width, height
    return Crops((height - h) / 2, (width - w) / 2, h, w, torch.zeros(len(h), dtype=torch.bool))


def resample(images: Real[Tensor, "B C H W"], crop: Crops, size: tuple[int, int]) -> Real[Tensor, "B C h w"]:
    """Resize every box to `size` in one call: bytes to bytes, floats to floats.

    Bilinear interpolation with antialiasing, written as two matmuls with triangle weights.
    """
    batch, channels, height, width = images.shape
    rows = triangle_weights(crop.top, crop.height, size[0], height)
    columns = triangle_weights(crop.left, crop.width, size[1], width)
    columns = torch.where(crop.flip[:, None, None], columns.flip(1), columns)
    lines = images.transpose(1, 2).reshape(batch, height, channels * width).float()  # all channels in one matmul
    views = (rows @ lines).view(batch, size[0] * channels, width) @ columns.mT
    if images.dtype == torch.uint8:
        views = views.round_().clamp_(0, 255).to(torch.uint8)
    return views.view(batch, size[0], channels, size[1]).transpose(1, 2).contiguous()


def resize(images: Real[Tensor, "B C H W"], size: tuple[int, int]) -> Real[Tensor, "B C h w"]:
    """Resize whole images to `size`, whatever their aspect ratio."""
    if images.shape[2:] == size:
        return images
    height, width = (torch.full((len(images),), float(side)) for side in images.shape[2:])
    return resample(images, center_crops(size, height, width, "squash"), size)


def triangle_weights(
    start: Float[Tensor, "B"], length: Float[Tensor, "B"], out: int, size: int
) -> Float[Tensor, "B out size"]:
    """Return the weight of each source pixel in each output pixel; each row sums to 1."""
    scale = (length / out)[:, None, None]
    center = start[:, None, None] + (torch.arange(out)[:, None] + 0.5) * scale
    source = torch.arange(size) + 0.5
    weight = (1 - (source - center).abs() / scale.clamp(min=1)).clamp(min=0)
    weight = weight * ((source > start[:, None, None]) & (source < (start + length)[:, None, None]))
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-12)
