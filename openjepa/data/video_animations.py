"""Read clips from GIF, WebP and APNG; any other image is a clip of one frame.   N frames  K frames that are read"""

from __future__ import annotations

import io
from typing import Self

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image as Pillow

from openjepa.data.image_io import read_bytes
from openjepa.data.image_opening import DECODE_ERRORS, Undecodable, open_content
from openjepa.data.video_io import check_clip_size

DEFAULT_SECONDS = 0.1  # that a frame lasts if its file says 0, as browsers do


class AnimationFrames:
    """The frames of an animated picture, which build on one another."""

    def __init__(self, path: str, channels: int):
        content = read_bytes(path)
        open_content(content)  # checks the header
        self.image, self.mode = Pillow.open(io.BytesIO(content)), "RGB" if channels == 3 else "L"
        self.count = getattr(self.image, "n_frames", 1)
        self.seconds = [self.duration(number) for number in range(self.count)]

    def duration(self, number: int) -> float:
        """Return how long a frame lasts, in seconds."""
        try:
            self.image.seek(number)
        except DECODE_ERRORS as error:
            raise Undecodable(f"its frame {number} cannot be decoded ({error})") from error
        return float(self.image.info.get("duration") or 0) / 1000 or DEFAULT_SECONDS

    @property
    def times(self) -> Float64[np.ndarray, "N"]:
        return np.concatenate([[0.0], np.cumsum(self.seconds)[:-1]])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.image.close()

    def read(self, index: list[int]) -> UInt8[np.ndarray, "K H W C"]:
        """Decode some frames. Raises Undecodable if one is damaged."""
        check_clip_size(len(index), self.image.height, self.image.width)
        frames = {number: self.read_frame(number) for number in sorted(set(index))}
        return np.stack([frames[number] for number in index])

    def read_frame(self, number: int) -> UInt8[np.ndarray, "H W C"]:
        """Decode one frame on a black background."""
        try:
            self.image.seek(number)
            frame = np.asarray(self.image.convert(self.mode))
        except DECODE_ERRORS as error:
            raise Undecodable(f"its frame {number} cannot be decoded ({error})") from error
        return frame if frame.ndim == 3 else frame[..., None]
