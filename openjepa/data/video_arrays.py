"""Read clips from .npy files (frames, height, width, channels) of bytes.   N frames  K frames that are read"""

from __future__ import annotations

from typing import Self

import numpy as np
from jaxtyping import Float64, UInt8

from openjepa.data.image_opening import Undecodable
from openjepa.data.video_folders import FRAME_RATE


class ArrayFrames:
    """The frames of an array, read through a memory map."""

    def __init__(self, path: str, channels: int):
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise Undecodable(f"it is not a .npy array that can be read ({error})") from error
        self.array = array[..., None] if array.ndim == 3 else array
        shape = tuple(array.shape)
        if array.dtype != np.uint8 or self.array.ndim != 4 or self.array.shape[3] not in (1, 3) or not array.size:
            raise Undecodable(
                f"an array of clips has bytes (frames, height, width, channels), got {array.dtype} {shape}"
            )
        self.channels = channels

    @property
    def times(self) -> Float64[np.ndarray, "N"]:
        return np.arange(len(self.array)) / FRAME_RATE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Do nothing: the memory map is closed with the array."""

    def read(self, index: list[int]) -> UInt8[np.ndarray, "K H W C"]:
        """Return some frames; gray becomes RGB, and RGB its luma, where the encoder has other channels."""
        frames = np.asarray(self.array[index])
        if frames.shape[3] == self.channels:
            return frames
        if self.channels == 3:
            return frames.repeat(3, axis=3)
        return (frames @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)[..., None]
