"""Random color jitter.   B batch  C channels  H height  W width"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Real
from torch import Tensor

from openjepa.core.rng import CounterRNG

GRAY_WEIGHTS = torch.tensor([0.299, 0.587, 0.114])  # luma of red, green, blue (ITU-R BT.601)

JITTER_PROBABILITY, GRAY_PROBABILITY = 0.8, 0.2  # per view (SimCLR, arXiv 2002.05709, appendix A)


def color_jitter(views: Real[Tensor, "B 3 H W"], strength: float, rng: CounterRNG) -> Real[Tensor, "B 3 H W"]:
    """Jitter brightness, contrast, saturation and hue, and turn some views gray.

    Brightness, contrast and saturation change by up to 0.8·strength, hue by up to 0.2·strength of a full turn.

    Source: SimCLR, whose CIFAR-10 runs use strength 0.5.
    Differs: the four changes form one affine map of a pixel's color, in fixed order, and only its result is clamped to
    [0, 255]; hue rotates about the gray axis.
    """
    u = rng.uniform("colour", 6)
    changed = u[:, 4] < JITTER_PROBABILITY
    spread = 0.8 * strength * (2 * u[:, :3] - 1)
    brightness, contrast, saturation = torch.where(changed[:, None], 1 + spread, 1.0).clamp(min=0).unbind(1)
    turn = torch.where(changed, 2 * math.pi * 0.2 * strength * (2 * u[:, 3] - 1), 0.0)
    saturation = torch.where(u[:, 5] < GRAY_PROBABILITY, 0.0, saturation)

    jittered = recolor(views.float(), brightness, contrast, saturation, turn)
    return (jittered.round() if views.dtype == torch.uint8 else jittered).clamp(0, 255).to(views.dtype)


def recolor(
    views: Float[Tensor, "B 3 H W"],
    brightness: Float[Tensor, "B"],
    contrast: Float[Tensor, "B"],
    saturation: Float[Tensor, "B"],
    turn: Float[Tensor, "B"],
) -> Float[Tensor, "B 3 H W"]:
    """Turn the hue by an angle, then multiply saturation, contrast and brightness by factors.

    Contrast keeps the mean gray level. Values are not clamped.
    """
    weights, eye = GRAY_WEIGHTS.to(views.device), torch.eye(3, device=views.device)
    gray = weights.expand(3, 3)  # maps a color to its gray in all three channels
    saturate = gray + saturation[:, None, None] * (eye - gray)
    matrix = (brightness * contrast)[:, None, None] * (saturate @ hue_rotation(turn))
    level = (views.mean((2, 3)) @ weights) * brightness  # mean gray level, which contrast keeps
    return torch.einsum("bij,bjhw->bihw", matrix, views) + (level * (1 - contrast)).view(-1, 1, 1, 1)


def hue_rotation(angle: Float[Tensor, "B"]) -> Float[Tensor, "B 3 3"]:
    """Return the rotations about the gray axis (1, 1, 1) by Rodrigues' formula."""
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], device=angle.device) / math.sqrt(3)
    ones = torch.ones(3, 3, device=angle.device)
    return cos * torch.eye(3, device=angle.device) + (1 - cos) / 3 * ones + sin * cross
