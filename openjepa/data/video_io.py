"""Open what a clip is read from: a video file, a folder of frames, an animated picture, an array.

N frames of the file  K frames that are read  H height  W width  C channels
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
from jaxtyping import Float64, UInt8

from openjepa.data.archives import parse_address
from openjepa.data.image_formats import IMAGE_SUFFIXES
from openjepa.data.image_opening import Undecodable
from openjepa.data.walking import path_suffix

CONTAINERS = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
     ".ogv", ".y4m"}
)  # fmt: skip

ANIMATIONS = frozenset({".gif", ".webp", ".apng"})

VIDEO_SUFFIXES = CONTAINERS | {".npy"}  # that tell video from other data; animations are images unless chosen

MAX_CLIP_BYTES = 2**31  # of the frames that are decoded for one clip


@runtime_checkable
class Frames(Protocol):
    """The frames of one file, which are decoded when they are read."""

    @property
    def times(self) -> Float64[np.ndarray, "N"]:
        """Return when each frame appears, in seconds from the first one, in order."""
        ...

    def read(self, index: list[int]) -> UInt8[np.ndarray, "K H W C"]:
        """Decode frames by their numbers, in ascending order; a number may repeat. Raises Undecodable."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...


def open_frames(path: str, channels: int) -> Frames:
    """Open a video file, a folder of frames, an animated picture, an image or an array.

    Raises:
        Undecodable: it is none of these, or it has no frames.
        UserError: the file needs a package that is not installed.
    """
    return find_reader(path)(path, channels)


def find_reader(path: str) -> Callable[[str, int], Frames]:
    """Return what opens a file, by its name; a module is imported when it is first needed."""
    suffix = path_suffix(path)
    if parse_address(path) is None and Path(path).is_dir():
        from openjepa.data.video_folders import FolderFrames

        return FolderFrames
    if suffix == ".npy":
        from openjepa.data.video_arrays import ArrayFrames

        return ArrayFrames
    if suffix in ANIMATIONS or suffix in IMAGE_SUFFIXES:
        from openjepa.data.video_animations import AnimationFrames

        return AnimationFrames
    from openjepa.data.video_containers import ContainerFrames

    return ContainerFrames


def check_clip_size(count: int, height: int, width: int) -> None:
    """Raise Undecodable if the frames of a clip would need too much memory."""
    if count * height * width * 3 > MAX_CLIP_BYTES:
        raise Undecodable(
            f"{count} frames of {height}×{width} pixels need more than {MAX_CLIP_BYTES // 2**30} GiB: scale them down"
        )
