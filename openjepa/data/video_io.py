"""Open the frames of a video file, a folder of frames, an animated image or an array.

K frames  N frames of the file  C channels  H height  W width
"""

from __future__ import annotations

import io
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, UInt8

from openjepa.core.fileio import file_version
from openjepa.data.archives import MemberAddress, parse_address
from openjepa.data.image_formats import DESCRIPTIONS, IMAGE_FORMATS, SNIFF_BYTES, describe_format, sniff_format
from openjepa.data.image_io import image_size, read_bytes, retry_reading
from openjepa.data.image_opening import Undecodable
from openjepa.data.image_pixels import parse_npy
from openjepa.data.recent import RecentValues
from openjepa.data.video_containers import ContainerFrames, VideoIndex, index_video
from openjepa.data.video_folders import (
    AnimationFrames,
    AnimationIndex,
    FolderFrames,
    FolderIndex,
    array_frames,
    index_animation,
    index_folder,
    map_array,
)
from openjepa.data.video_formats import ANIMATED_FORMATS, VIDEO_SUFFIXES
from openjepa.data.video_streams import OpenVideo, Stream, has_av

__all__ = ("VIDEO_SUFFIXES", "Undecodable")  # defined elsewhere

CACHED_FRAMES = 2**21  # frames whose numbers and times are in memory in each process: 128 MiB


@runtime_checkable
class Frames(Protocol):
    """The frames of a source, to be closed after use."""

    @property
    def times(self) -> Float64[np.ndarray, "N"]:
        """Return the seconds of every frame from the first, sorted."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width as displayed."""
        ...

    def read(self, index: list[int]) -> UInt8[np.ndarray, "K H W C"]:
        """Decode the frames with these numbers, which are sorted and may repeat. Raises Undecodable."""
        ...

    def close(self) -> None: ...
    def __enter__(self) -> Frames: ...
    def __exit__(self, *_: object) -> None: ...


def count_frames(index: VideoIndex | AnimationIndex | FolderIndex) -> int:
    """Return the frames that an index numbers."""
    if isinstance(index, FolderIndex):
        return len(index.paths)
    return len(index.times if isinstance(index, AnimationIndex) else index.extent)


INDEXES: RecentValues[Any] = RecentValues(CACHED_FRAMES, count_frames)  # of this process, by path and version


def open_frames(path: str, channels: int) -> Frames:
    """Open a video file, a folder of frames, an image or an array, of disk or in an archive, in 1 or 3 channels.

    Raises:
        Undecodable: it has no frames that can be decoded; the message is the reason.
        OSError: it cannot be read.
    """
    address = parse_address(path)
    if address is None and Path(path).is_dir():
        index = INDEXES.get((path, *version_of(path, None)), lambda: index_folder(path, channels))
        return FolderFrames(index, channels)
    with ExitStack() as stack:
        stream = stack.enter_context(open_stream(path, address))
        frames = frames_of(path, address, stream, channels)
        stack.pop_all()  # the frames close the file
        return frames


def open_stream(path: str, address: MemberAddress | None) -> Stream:
    """Open a file, or the bytes of a member of an archive."""
    if address:
        return io.BytesIO(read_bytes(path))
    return retry_reading(path, lambda: open(path, "rb"))  # noqa: PTH123 (speed; the frames close it)


def version_of(path: str, address: MemberAddress | None) -> tuple[int, ...]:
    """Return what changes when a file, or the archive that it is in, changes."""
    return retry_reading(path, lambda: file_version(address.archive if address else path))


def frames_of(path: str, address: MemberAddress | None, stream: Stream, channels: int) -> Frames:
    """Return the frames of an open file by its first bytes. Raises Undecodable."""
    first = stream.read(SNIFF_BYTES)
    name, key = sniff_format(first), (path, *version_of(path, address))
    if name in IMAGE_FORMATS or (name in DESCRIPTIONS and name not in ("MP4", "Matroska", "AVI", "zeros")):
        stream.close()
    if name == "NumPy":
        return array_frames(parse_npy(read_bytes(path)) if address else map_array(path), channels)
    if name in ANIMATED_FORMATS:
        content = read_bytes(path)
        index = INDEXES.get(key, lambda: index_animation(content))
        if len(index.times) > 1:
            return AnimationFrames(content, index, channels)
    if name in IMAGE_FORMATS:
        return FolderFrames(FolderIndex([path], image_size(path, channels)), channels)
    if stream.closed or name == "zeros":
        reason = describe_format(name, first)
        raise Undecodable(reason.replace("not an image", "not a video").replace("not the image", "not the video"))
    if not has_av():
        file = PurePosixPath(address.name if address else path).name
        raise Undecodable(f"reading {file} needs PyAV: pip install 'openjepa[video]'")
    video = OpenVideo(stream)
    return ContainerFrames(video, INDEXES.get(key, lambda: index_video(video)), channels)
