"""Clips without motion, with frames in another order, or backwards.   B batch  F frames  C channels"""

from __future__ import annotations

import zlib

import torch
from jaxtyping import UInt8
from torch import Tensor


def repeat_middle_frame(clips: UInt8[Tensor, "B F C H W"]) -> UInt8[Tensor, "B F C H W"]:
    """Replace every frame by the middle one: what is left is what a single image shows."""
    middle = clips.shape[1] // 2
    return clips[:, middle : middle + 1].expand_as(clips)


def shuffle_frames(clips: UInt8[Tensor, "B F C H W"]) -> UInt8[Tensor, "B F C H W"]:
    """Put the frames of each clip in a random order, which depends on the pixels of the clip alone.

    So a clip has the same order for every encoder, in every batch, and whenever it is read.
    """
    return torch.stack([clip[frame_order(clip)] for clip in clips])


def frame_order(clip: UInt8[Tensor, "F C H W"]) -> Tensor:
    """Return the random order of a clip's frames."""
    seed = zlib.crc32(clip[len(clip) // 2].cpu().numpy().tobytes())
    return torch.randperm(len(clip), generator=torch.Generator().manual_seed(seed)).to(clip.device)


def reverse_time(clips: UInt8[Tensor, "B F C H W"]) -> UInt8[Tensor, "B F C H W"]:
    """Return the clips backwards."""
    return clips.flip(1)
