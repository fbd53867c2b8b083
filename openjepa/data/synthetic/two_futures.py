"""Render clips whose first half has two possible futures: a junction, and motion that goes on or comes back.

S clips  F frames  H height  W width
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.data.synthetic.moving_scenes import render_clips

RADIUS = 0.07  # of the dot, as a fraction of the frame

CORRIDOR = 0.12  # half the width of a corridor


def render_junction(count: int, frames: int, pixels: int, seed: int, future: Int[Tensor, "S"] | None = None):
    """Render a dot that comes up a corridor to a junction in the middle of the clip, and turns left or right.

    Returns the clips and their futures, 0 (left) or 1 (right), which are drawn unless given. The corridor is elsewhere
    in each clip, and the dot's color is another.
    """
    rng = CounterRNG.of(seed, 0, np.arange(count))
    future = (rng.uniform("future") < 0.5).long() if future is None else future
    at = 0.35 + 0.3 * rng.uniform("junction", 2)  # x and y
    color = 0.4 + 0.6 * rng.uniform("color", 3)
    half = frames // 2
    time = torch.arange(frames)
    up = ((half - time).clamp(min=0) / half)[None] * (0.95 - at[:, 1:])  # from the lower border to the junction
    aside = ((time - half + 1).clamp(min=0) / (frames - half))[None] * 0.3 * (2 * future - 1)[:, None]
    center = torch.stack([at[:, :1] + aside, at[:, 1:] + up], -1)  # S F 2
    return draw_dot(center, at, color, pixels), future


def draw_dot(
    center: Float[Tensor, "S F 2"], junction: Float[Tensor, "S 2"], color: Float[Tensor, "S 3"], pixels: int
) -> UInt8[Tensor, "S F 3 H W"]:
    """Draw corridors in dark gray, and the dot."""
    axis = (torch.arange(pixels) + 0.5) / pixels
    x, y = axis[None, None, :], axis[None, :, None]
    left, top = (junction[:, each, None, None] for each in range(2))
    along = ((x - left).abs() < CORRIDOR) & (y > top - CORRIDOR)
    across = (y - top).abs() < CORRIDOR
    floor = 0.2 * (along | across).float()  # S H W
    distance = ((x - center[..., 0, None, None]).square() + (y - center[..., 1, None, None]).square()).sqrt()
    cover = ((RADIUS - distance) * pixels + 0.5).clamp(0, 1)[:, :, None]  # S F 1 H W
    frames = floor[:, None, None] * (1 - cover) + color[:, None, :, None, None] * cover
    return (255 * frames).round().to(torch.uint8)


def render_return(count: int, frames: int, pixels: int, seed: int, future: Int[Tensor, "S"] | None = None):
    """Render objects that move on in the second half of the clip, or come back the same way.

    Returns the clips and their futures, 0 (on) or 1 (back), which are drawn unless given.
    """
    rng = CounterRNG.of(seed, 0, np.arange(count))
    future = (rng.uniform("future") < 0.5).long() if future is None else future
    clips, half = render_clips(count, frames, pixels, seed).clips, frames // 2
    back = torch.cat([clips[:, :half], clips[:, :half].flip(1)[:, : frames - half]], 1)
    return torch.where((future == 1)[:, None, None, None, None], back, clips), future
