"""Random and evaluation crops, and resampling.   B batch  C channels  H height  W width"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from openjepa.core.rng import CounterRNG


class Crops(NamedTuple):
    """Boxes in pixels of each picture, and whether to mirror."""

    top: Float[Tensor, "B"]
    left: Float[Tensor, "B"]
    height: Float[Tensor, "B"]
    width: Float[Tensor, "B"]
    flip: Tensor

    def box(self, row: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom, as Pillow wants them."""
        left, top = float(self.left[row]), float(self.top[row])
        return left, top, left + float(self.width[row]), top + float(self.height[row])


def random_crops(
    scale: tuple[float, float],
    aspect_range: tuple[float, float],
    flip: bool,
    height: Float[Tensor, "B"],
    width: Float[Tensor, "B"],
    draws: CounterRNG,
) -> Crops:
    """Boxes distributed as torchvision's RandomResizedCrop: ten tries at scale and aspect, then the centre."""
    u = draws.uniform("crop", 10, 2)
    area = height * width
    wanted = area[:, None] * (scale[0] + u[..., 0] * (scale[1] - scale[0]))
    low, high = math.log(aspect_range[0]), math.log(aspect_range[1])
    aspect = torch.exp(low + u[..., 1] * (high - low))
    w, h = (wanted * aspect).sqrt().round(), (wanted / aspect).sqrt().round()
    fits = (w > 0) & (h > 0) & (w <= width[:, None]) & (h <= height[:, None])
    chosen = fits.to(torch.uint8).argmax(1, keepdim=True)  # the first that fits
    w, h = w.gather(1, chosen)[:, 0], h.gather(1, chosen)[:, 0]

    ratio = (width / height).clamp(*aspect_range)
    none = ~fits.any(1)
    w = torch.where(none, torch.minimum(width, (height * ratio).round()), w)
    h = torch.where(none, torch.minimum(height, (width / ratio).round()), h)
    place = draws.uniform("crop place", 2)
    top = torch.where(none, ((height - h) / 2).round(), (place[:, 0] * (height - h + 1)).floor())
    left = torch.where(none, ((width - w) / 2).round(), (place[:, 1] * (width - w + 1)).floor())
    return Crops(top, left, h, w, (draws.uniform("flip") < 0.5) & flip)


EvalCrop = Literal["crop", "margin", "squash"]


def center_crops(size: tuple[int, int], height: Float[Tensor, "B"], width: Float[Tensor, "B"], fit: EvalCrop) -> Crops:
    """The evaluation view: the largest centred box of the view's aspect ("crop"), the middle 7/8 of that, as by resizing
    to 256 and cutting 224 ("margin"), or the whole picture, whatever its aspect ("squash").
    """
    aspect, share = size[1] / size[0], 7 / 8 if fit == "margin" else 1.0
    w, h = share * torch.minimum(width, height * aspect), share * torch.minimum(height, width / aspect)
    if fit == "squash":
        w, h = width, height
    return Crops((height - h) / 2, (width - w) / 2, h, w, torch.zeros(len(h), dtype=torch.bool))


def resample(pictures: UInt8[Tensor, "B C H W"], crop: Crops, size: tuple[int, int]) -> UInt8[Tensor, "B C h w"]:
    """Every box resized to `size` in one call: bilinear with antialiasing, as two products with triangle weights."""
    batch, channels, height, width = pictures.shape
    rows, columns = (
        triangle_weights(crop.top, crop.height, size[0], height),
        triangle_weights(crop.left, crop.width, size[1], width),
    )
    columns = torch.where(crop.flip[:, None, None], columns.flip(1), columns)
    lines = pictures.transpose(1, 2).reshape(batch, height, channels * width).float()  # all channels in one product
    seen = (rows @ lines).view(batch, size[0] * channels, width) @ columns.mT
    seen = seen.round_().clamp_(0, 255).to(torch.uint8).view(batch, size[0], channels, size[1])
    return seen.transpose(1, 2).contiguous()


def triangle_weights(
    start: Float[Tensor, "B"], length: Float[Tensor, "B"], out: int, size: int
) -> Float[Tensor, "B out size"]:
    """How much each source pixel gives to each output pixel."""
    scale = (length / out)[:, None, None]
    centre = start[:, None, None] + (torch.arange(out)[:, None] + 0.5) * scale
    source = torch.arange(size) + 0.5
    weight = (1 - (source - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weight = weight * ((source > start[:, None, None]) & (source < (start + length)[:, None, None]))
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-12)
