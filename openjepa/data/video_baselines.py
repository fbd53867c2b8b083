"""Features of clips without an encoder: pixels and their changes, at low resolution.   B batch  F frames  K features"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

SIDE = 16  # pixels of a frame's side that baselines see


def raw_pixels(clips: UInt8[Tensor, "B F C H W"]) -> Float[Tensor, "B K"]:
    """Return the pixels of all frames, in gray."""
    return small_gray(clips).flatten(1)


def middle_frame(clips: UInt8[Tensor, "B F C H W"]) -> Float[Tensor, "B K"]:
    """Return the pixels of the middle frame, in color."""
    return shrink(clips[:, clips.shape[1] // 2].float() / 255).flatten(1)


def frame_differences(clips: UInt8[Tensor, "B F C H W"]) -> Float[Tensor, "B K"]:
    """Return the absolute changes of gray pixels from each frame to the next."""
    return small_gray(clips).diff(dim=1).abs().flatten(1)


def small_gray(clips: UInt8[Tensor, "B F C H W"]) -> Float[Tensor, "B F h w"]:
    return shrink(clips.float().mean(2) / 255)


def shrink(frames: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
    """Average pixels until the longer side has at most SIDE of them."""
    scale = max(1, -(-max(frames.shape[2:]) // SIDE))
    return F.avg_pool2d(frames, scale) if scale > 1 else frames
