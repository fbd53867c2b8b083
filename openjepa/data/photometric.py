"""Photometric transforms of images with known parameters.

B views  C channels  H height  W width  A parameters
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Real
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.data.augment import GRAY_WEIGHTS, recolor

SOLARIZE_ABOVE = 128.0  # brightness from which values are inverted, as in BYOL
BLUR_RADIUS = 2  # pixels on each side of the center of the blur's kernel


class Photometric(NamedTuple):
    """The parameters of the transforms of each view: a view stays as it is where all are 0."""

    brightness: Float[Tensor, "B"]  # relative change, -1 to 1
    contrast: Float[Tensor, "B"]  # relative change, -1 to 1
    saturation: Float[Tensor, "B"]  # relative change, -1 to 1
    hue: Float[Tensor, "B"]  # fraction of a full turn
    gray: Float[Tensor, "B"]  # 0 or 1, as are the following
    blur: Float[Tensor, "B"]
    solarize: Float[Tensor, "B"]

    @classmethod
    def of(cls, rows: int = 1, /, **parameters: float) -> Photometric:
        """Return the same transform for every view, such as `brightness=0.3, blur=1.0`."""
        return cls(*(torch.full((rows,), float(parameters.get(name, 0.0))) for name in NAMES))

    def to(self, device: torch.device) -> Photometric:
        return Photometric(*(each.to(device) for each in self))


NAMES = Photometric._fields
JITTER, DESTRUCTIVE = NAMES[:4], NAMES[4:]  # changes of color; transforms that destroy information


@dataclass(frozen=True)
class PhotometricConfig:
    """How strongly views are transformed, and how often. The defaults are those of IWM, arXiv 2403.00504."""

    jitter_probability: float = 0.8  # of changing the colors of a view
    brightness: float = 0.4  # largest relative change
    contrast: float = 0.4  # largest relative change
    saturation: float = 0.2  # largest relative change
    hue: float = 0.1  # largest turn, as a fraction of a full turn
    gray: float = 0.2  # probability that a source view is gray
    blur: float = 0.2  # probability that a source view is blurred
    solarize: float = 0.2  # probability that the bright values of a source view are inverted

    def __post_init__(self):
        for name in ("jitter_probability", *DESTRUCTIVE):
            if not 0 <= getattr(self, name) <= 1:
                flag = f"--method.transforms.{name.replace('_', '-')}"
                raise UserError(f"{flag} is a probability, 0 to 1, got {getattr(self, name):g}")
        for name in JITTER:
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"--method.transforms.{name} must be from 0 to 1, got {getattr(self, name):g}")

    def draw(self, rng: CounterRNG, name: str, destructive: bool) -> Photometric:
        """Draw the change of colors of each view, and whether each transform that destroys information applies."""
        u = rng.uniform(f"{name} jitter", len(JITTER) + 1)
        spread = torch.tensor([getattr(self, each) for each in JITTER])
        jitter = torch.where(u[:, 4:] < self.jitter_probability, spread * (2 * u[:, :4] - 1), 0.0)
        probability = torch.tensor([getattr(self, each) if destructive else 0.0 for each in DESTRUCTIVE])
        applies = (rng.uniform(f"{name} destructive", len(DESTRUCTIVE)) < probability).float()
        return Photometric(*jitter.unbind(1), *applies.unbind(1))


def difference(source: Photometric, target: Photometric) -> Float[Tensor, "B A"]:
    """Return the action that leads from a source to a target view, 0 if nothing differs.

    Changes of color are target minus source; a transform that destroyed information of the source counts as 1.
    """
    jitter = [getattr(target, name) - getattr(source, name) for name in JITTER]
    return torch.stack([*jitter, *(getattr(source, name) for name in DESTRUCTIVE)], 1)


def transform(views: Real[Tensor, "B 3 H W"], parameters: Photometric) -> Real[Tensor, "B 3 H W"]:
    """Apply the transforms to views on the scale of bytes: colors, then gray, blur and solarize."""
    parameters = parameters.to(views.device)
    brightness, contrast, saturation, hue = (getattr(parameters, name) for name in JITTER)
    x = recolor(views.float(), 1 + brightness, 1 + contrast, 1 + saturation, 2 * math.pi * hue)
    x = clip(x, views.dtype)
    gray = torch.einsum("c,bchw->bhw", GRAY_WEIGHTS.to(x.device), x)[:, None].expand_as(x)
    x = torch.where(applies(parameters.gray), gray, x)
    x = torch.where(applies(parameters.blur), blur(x), x)
    x = torch.where(applies(parameters.solarize) & (x >= SOLARIZE_ABOVE), 255 - x, x)
    return clip(x, views.dtype).to(views.dtype)


def applies(parameter: Float[Tensor, "B"]) -> Tensor:
    """Return whether a transform applies to each view: (B, 1, 1, 1)."""
    return (parameter > 0.5).view(-1, 1, 1, 1)


def clip(x: Float[Tensor, "B 3 H W"], dtype: torch.dtype) -> Float[Tensor, "B 3 H W"]:
    """Keep values in [0, 255]; round them if the views are bytes."""
    return (x.round() if dtype == torch.uint8 else x).clamp(0, 255)


def blur(x: Float[Tensor, "B 3 H W"], sigma: float = 1.0) -> Float[Tensor, "B 3 H W"]:
    """Blur with a normal density of standard deviation `sigma` pixels; edges are repeated."""
    offset = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=x.device)
    kernel = (-0.5 * (offset / sigma).square()).exp()
    kernel = kernel / kernel.sum()
    padded = F.pad(x, (BLUR_RADIUS,) * 4, mode="replicate").flatten(0, 1)[:, None]
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1)).view_as(x)
