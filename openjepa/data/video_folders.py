"""Read frames that need no video decoder: folders of images, animated images, arrays.

K frames read  F frames of a file  C channels  H height  W width
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image as Pillow

from openjepa.data.image_formats import IMAGE_SUFFIXES, SNIFF_BYTES, sniff_format
from openjepa.data.image_io import decode_image, image_size
from openjepa.data.image_opening import (
    DECODE_ERRORS,
    Undecodable,
    check_pixel_count,
    describe_damage,
    find_reader,
    silence_pillow,
)
from openjepa.data.image_pixels import Pixels, to_channels, to_planes
from openjepa.data.image_values import upright_image
from openjepa.data.video_index import DEFAULT_RATE, MAX_FRAMES
from openjepa.data.walking import path_suffix, sorted_entries

FRAME_SUFFIXES = IMAGE_SUFFIXES - {".npy", ".gif", ".apng"}  # of the images in a folder of frames

DEFAULT_SECONDS = 0.1  # that an animated image shows a frame which states less than 0.02, as browsers do

EXPECTED = "must be uint8 of shape (frames, height, width) or (frames, height, width, channels)"


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return what frames are sorted by: numbers by their value, so that frame_2 comes before frame_10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(each), each) if each.isdecimal() else (1, 0, each) for each in parts if each]


def frames_in_folder(folder: str) -> list[str]:
    """Return the images directly in a folder in natural order."""
    files = [each for each in sorted_entries(folder) if path_suffix(each.name) in FRAME_SUFFIXES and each.is_file()]
    visible = [each for each in files if not each.name.startswith(".")]
    return [each.path for each in sorted(visible, key=lambda each: natural_key(each.name))]


class FolderIndex(NamedTuple):
    """The frames of a folder, and the height and width of the first, which all others must have."""

    paths: list[str]
    size: tuple[int, int]


def index_folder(folder: str, channels: int) -> FolderIndex:
    """List the frames of a folder. Raises Undecodable if it has none, or if the first is no image."""
    paths = frames_in_folder(folder)
    if not paths:
        raise Undecodable("the folder has no images that could be the frames of a clip")
    try:
        return FolderIndex(paths, image_size(paths[0], channels))
    except Undecodable as error:
        raise Undecodable(f"frame {Path(paths[0]).name}: {error}") from error


class StillFrames:
    """Base of sources whose frames are decoded one by one, each by itself."""

    def __init__(self, times: Float64[np.ndarray, "F"], size: tuple[int, int]):
        self.times, self.size = times, size

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing stays open."""

    def frame(self, number: int) -> UInt8[np.ndarray, "C H W"]:
        """Decode one frame. Raises Undecodable."""
        raise NotImplementedError

    def read(self, index: list[int]) -> UInt8[np.ndarray, "K H W C"]:
        """Decode the frames with these numbers, which are sorted and may repeat. Raises Undecodable."""
        frames = {number: self.frame(number) for number in sorted(set(index))}
        return np.stack([frames[number] for number in index]).transpose(0, 2, 3, 1)


class FolderFrames(StillFrames):
    """The images of a folder as the frames of one clip; an image file is a folder of one."""

    def __init__(self, index: FolderIndex, channels: int):
        super().__init__(even_times(len(index.paths)), index.size)
        self.paths, self.channels = index.paths, channels

    def frame(self, number: int) -> UInt8[np.ndarray, "C H W"]:
        path = self.paths[number]
        try:
            image = decode_image(path, self.channels)
        except Undecodable as error:
            raise Undecodable(f"frame {Path(path).name}: {error}") from error
        if image.shape[1:] != self.size:
            (height, width), first = image.shape[1:], Path(self.paths[0]).name
            raise Undecodable(
                f"frame {Path(path).name} has {width}×{height} pixels, {first} has {self.size[1]}×{self.size[0]}: "
                "give all frames of a folder one size"
            )
        return image


class ArrayFrames(StillFrames):
    """The frames of an array, which may be mapped from a file."""

    def __init__(self, array: UInt8[np.ndarray, "F H W"] | UInt8[np.ndarray, "F H W C"], channels: int):
        super().__init__(even_times(len(array)), (array.shape[1], array.shape[2]))
        self.array, self.channels = array, channels

    def read(self, index: list[int]) -> UInt8[np.ndarray, "K H W C"]:
        if self.array.shape[3:] == (self.channels,):
            return np.asarray(self.array[index])
        return super().read(index)

    def frame(self, number: int) -> UInt8[np.ndarray, "C H W"]:
        return to_channels(Pixels(to_planes_of(self.array[number])), self.channels)


class AnimationIndex(NamedTuple):
    """When the frames of an animated image are displayed, and their height and width."""

    times: Float64[np.ndarray, "F"]
    size: tuple[int, int]


class AnimationFrames(StillFrames):
    """The frames of an animated GIF, PNG or WebP, transparency on white."""

    def __init__(self, content: bytes, index: AnimationIndex, channels: int):
        super().__init__(*index)
        self.content, self.channels, self.image = content, channels, open_animation(content)

    def close(self) -> None:
        self.image.close()

    def frame(self, number: int) -> UInt8[np.ndarray, "C H W"]:
        try:
            self.image.seek(number)
            return to_planes(upright_image(self.image.copy(), self.channels))
        except DECODE_ERRORS as error:
            raise Undecodable(describe_damage(sniff_format(self.content[:SNIFF_BYTES]), self.content, error)) from error


def open_animation(content: bytes) -> Pillow.Image:
    """Open an image with all its frames. Raises Undecodable."""
    name = sniff_format(content[:SNIFF_BYTES])
    silence_pillow()
    try:
        image = find_reader(name, content)(io.BytesIO(content), "")
    except Pillow.DecompressionBombError as error:
        raise Undecodable("too many pixels: a decompression bomb?") from error
    except DECODE_ERRORS as error:
        raise Undecodable(describe_damage(name, content, error)) from error
    check_pixel_count(*image.size)
    return image


def index_animation(content: bytes) -> AnimationIndex:
    """Read when each frame of an animated image is displayed, as many as there are before the file is damaged."""
    starts, now = [], 0.0
    with open_animation(content) as image:
        try:
            while len(starts) < MAX_FRAMES:
                image.seek(len(starts))
                if image.format == "WEBP":
                    image.load()  # only then is the duration known
                starts.append(now)
                seconds = float(image.info.get("duration", 0)) / 1000
                now += seconds if seconds >= 0.02 else DEFAULT_SECONDS
        except DECODE_ERRORS:  # an EOFError after the last frame
            pass
        if not starts:
            raise Undecodable("it has no frames that can be decoded")
        return AnimationIndex(np.array(starts), (image.size[1], image.size[0]))


def map_array(path: str) -> np.ndarray:
    """Map a .npy file into memory without reading it. Raises Undecodable if it is no plain array."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise Undecodable("not a plain numpy array, or a truncated one") from error


def array_frames(array: np.ndarray, channels: int) -> ArrayFrames:
    """Return the frames of an array. Raises Undecodable if its shape or its values are not those of a clip."""
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.size == 0:
        raise Undecodable(f"{array.dtype} of shape {array.shape}: {EXPECTED}")
    if array.ndim == 4 and array.shape[3] > 4:
        raise Undecodable(f"{array.dtype} of shape {array.shape} has its channels elsewhere: {EXPECTED}")
    frames = ArrayFrames(array, channels)
    frames.frame(0)  # raises Undecodable if the channels do not fit
    return frames


def to_planes_of(frame: UInt8[np.ndarray, "H W"] | UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "C H W"]:
    """Return a frame with its channels first."""
    return np.asarray(frame)[None] if frame.ndim == 2 else np.asarray(frame).transpose(2, 0, 1)


def even_times(count: int) -> Float64[np.ndarray, "F"]:
    """Return the seconds of frames that no file dates: DEFAULT_RATE a second."""
    return np.arange(count) / DEFAULT_RATE
