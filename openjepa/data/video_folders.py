"""Read clips from folders of frames: one image file per frame.   N frames  K frames that are read"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Float64, UInt8

from openjepa.data.crops import center_crops
from openjepa.data.image_formats import IMAGE_SUFFIXES
from openjepa.data.image_io import Undecodable, read_image_file
from openjepa.data.image_values import crop_file
from openjepa.data.never_data import reason_to_leave_out
from openjepa.data.video_io import check_clip_size

FRAME_RATE = 25.0  # frames per second of a folder, which does not say


class FolderFrames:
    """The images of a folder, in the order of the numbers in their names."""

    def __init__(self, path: str, channels: int):
        self.channels = channels
        files = [file for file in Path(path).iterdir() if is_frame(file)]
        self.files = sorted(files, key=lambda file: natural_key(file.name))
        if not self.files:
            raise Undecodable("the folder has no images")

    @property
    def times(self) -> Float64[np.ndarray, "N"]:
        return np.arange(len(self.files)) / FRAME_RATE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Do nothing: no file stays open."""

    def read(self, index: list[int]) -> UInt8[np.ndarray, "K H W C"]:
        """Decode some frames. Raises Undecodable if one is damaged or of another size than the first."""
        frames = {number: self.read_frame(number, len(index)) for number in sorted(set(index))}
        sizes = {frame.shape for frame in frames.values()}
        if len(sizes) > 1:
            raise Undecodable(f"its frames have different sizes: {' and '.join(describe(each) for each in sizes)}")
        return np.stack([frames[number] for number in index])

    def read_frame(self, number: int, count: int) -> UInt8[np.ndarray, "H W C"]:
        """Decode one frame as a whole."""
        file = self.files[number]
        try:
            image = read_image_file(str(file), self.channels)
            check_clip_size(count, image.height, image.width)
            sides = torch.tensor([image[:2]], dtype=torch.float32)
            whole = center_crops(image[:2], sides[:, 0], sides[:, 1], "squash")
            return np.asarray(crop_file(image, self.channels, whole, 0, image[:2])).transpose(1, 2, 0)
        except Undecodable as error:
            raise Undecodable(f"its frame {file.name} cannot be decoded: {error}") from error


def is_frame(file: Path) -> bool:
    """Return whether a file of a folder is one of its frames."""
    return file.suffix.lower() in IMAGE_SUFFIXES and not reason_to_leave_out(file.name, False) and file.is_file()


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return what names are sorted by, so that frame_2 comes before frame_10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() and part.isascii() else (-1, part) for part in parts]


def describe(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}×{shape[1]}"
