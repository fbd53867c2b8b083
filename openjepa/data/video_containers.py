"""Read frames of video files with PyAV: only those that a clip needs, found by their timestamps.

N frames of the file  K frames that are read  H height  W width  C channels
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from openjepa.core.errors import UserError
from openjepa.core.fileio import file_version
from openjepa.data.archives import parse_address
from openjepa.data.image_io import read_bytes
from openjepa.data.image_opening import MAX_PIXELS, Undecodable
from openjepa.data.video_io import check_clip_size

# what FFmpeg may take a file for: no playlists, which name other files and hosts
FORMATS = "mov,mp4,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg,gif,h264,hevc,yuv4mpegpipe,ivf,mjpeg"

INDEXED_FILES = 4096  # whose timestamps a process keeps

DEFAULT_RATE = 25.0  # frames per second of files that do not say


class FrameIndex(NamedTuple):
    """When the frames of a file appear, and where decoding can start; in ticks of the stream's clock."""

    stamps: Int64[np.ndarray, "N"]  # in order of appearance
    keys: Int64[np.ndarray, "K"]  # stamps of frames that need no other
    tick: float  # seconds
    numbered: bool  # the file has no timestamps: stamps are the numbers of frames
    rotation: int = 0

    @property
    def times(self) -> Float64[np.ndarray, "N"]:
        return (self.stamps - self.stamps[0]) * self.tick


class ContainerFrames:
    """The frames of a video file, or of a member of an archive."""

    def __init__(self, path: str, channels: int):
        self.path, self.channels = path, channels
        version = None if parse_address(path) else file_version(path)
        self.container: Any = None
        try:
            self.index = index_of(path, version)
        except av_errors() as error:
            raise Undecodable(describe_error(error)) from error

    @property
    def times(self) -> Float64[np.ndarray, "N"]:
        return self.index.times

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.container is not None:
            self.container.close()
            self.container = None

    def read(self, index: list[int]) -> UInt8[np.ndarray, "K H W C"]:
        """Decode frames by their numbers, in ascending order; what cannot be decoded shows the frame before."""
        try:
            wanted = self.index.stamps[sorted(set(index))].tolist()
            pixels = self.decode(wanted, len(index))
        except av_errors() as error:
            raise Undecodable(describe_error(error)) from error
        return np.stack([pixels[int(self.index.stamps[each])] for each in index])

    def decode(self, wanted: list[int], count: int) -> dict[int, UInt8[np.ndarray, "H W C"]]:
        """Return the frames at these stamps, going from one to the next by decoding or by seeking."""
        if self.container is None:
            self.container = open_container(self.path)
        stream = video_stream(self.container)
        check_clip_size(count, stream.codec_context.height, stream.codec_context.width)
        pixels, previous = {}, None
        decoder = FrameDecoder(self.container, stream, self.index)
        for stamp in wanted:
            frame = decoder.frame_at(stamp)
            previous = previous if frame is None else self.to_pixels(frame, previous)
            if previous is None:
                raise Undecodable(f"no frame can be decoded at {stamp * self.index.tick:.2f} s")
            pixels[stamp] = previous
        return pixels

    def to_pixels(self, frame: Any, previous: UInt8[np.ndarray, "H W C"] | None) -> UInt8[np.ndarray, "H W C"]:
        """Convert a frame to RGB or gray, upright, and as large as the first one of the clip."""
        if frame.width * frame.height > MAX_PIXELS:
            raise Undecodable(f"frames of {frame.height}×{frame.width} pixels are too large")
        turns = self.index.rotation // 90
        sides = {}
        if previous is not None:
            height, width = previous.shape[:2] if turns % 2 == 0 else previous.shape[1::-1]
            sides = {"height": height, "width": width}
        pixels = frame.to_ndarray(format="rgb24" if self.channels == 3 else "gray", **sides)
        pixels = pixels if pixels.ndim == 3 else pixels[..., None]
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


class FrameDecoder:
    """Walks through a stream: decodes on, or seeks if a later frame can be decoded without those between."""

    def __init__(self, container: Any, stream: Any, index: FrameIndex):
        self.container, self.stream, self.index = container, stream, index
        self.frames, self.position, self.number = None, None, 0

    def frame_at(self, stamp: int) -> Any:
        """Return the frame of a stamp; None if it cannot be decoded."""
        key = self.key_before(stamp)
        if self.frames is None or (self.position is not None and key > self.position):
            self.seek(key)
        frame = self.next_at(stamp)
        if frame is None and not self.index.numbered and key != self.index.keys[0]:
            self.seek(int(self.index.keys[0]))  # a seek that led too far, in a file whose index is damaged
            frame = self.next_at(stamp)
        return frame

    def key_before(self, stamp: int) -> int:
        """Return the stamp of the last frame at or before `stamp` that needs no other."""
        keys = self.index.keys
        return int(keys[max(0, np.searchsorted(keys, stamp, side="right") - 1)])

    def seek(self, key: int) -> None:
        """Go to a frame; without timestamps, to the beginning of the file."""
        if not self.index.numbered:
            self.container.seek(key, stream=self.stream, backward=True)
        elif self.frames is not None:
            return
        self.frames, self.position, self.number = self.container.decode(self.stream), None, 0

    def next_at(self, stamp: int) -> Any:
        """Decode up to a stamp; return None if the stream has passed it or ends."""
        assert self.frames is not None
        if self.position is not None and self.position >= stamp:
            return None
        for frame in self.frames:
            self.position = self.number if self.index.numbered or frame.pts is None else frame.pts
            self.number += 1
            if self.position >= stamp:
                return frame if self.position == stamp else None
        return None


def open_container(path: str) -> Any:
    """Open a video file, or a member of an archive, which is read into memory."""
    av = import_av(path)
    source = io.BytesIO(read_bytes(path)) if parse_address(path) else f"file:{path}"
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    return av.open(source, container_options=options, metadata_errors="replace")


def video_stream(container: Any) -> Any:
    """Return the first stream with pictures that is not a cover; it is decoded by one thread."""
    for stream in container.streams.video:
        if "attached_pic" not in str(stream.disposition):
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            return stream
    kinds = {stream.type for stream in container.streams}
    raise Undecodable("it has sound but no pictures" if "audio" in kinds else "it has no pictures")


@lru_cache(maxsize=INDEXED_FILES)
def index_of(path: str, version: object) -> FrameIndex:
    """Read the timestamps of all frames without decoding them; `version` makes a changed file another one."""
    with open_container(path) as container:
        stream = video_stream(container)
        packets = [
            (packet.pts if packet.pts is not None else packet.dts, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
        if not packets:
            raise Undecodable("it has no frames")
        if any(stamp is None for stamp, _ in packets) or len({stamp for stamp, _ in packets}) < len(packets):
            rate = float(stream.average_rate or DEFAULT_RATE)
            return FrameIndex(np.arange(len(packets)), np.zeros(1, np.int64), 1 / rate, True, find_rotation(path))
        stamps = np.sort(np.array([stamp for stamp, _ in packets], np.int64))
        keys = np.sort(np.array([stamp for stamp, is_key in packets if is_key] or [stamps[0]], np.int64))
        return FrameIndex(stamps, keys, float(stream.time_base), False, find_rotation(path))


def find_rotation(path: str) -> int:
    """Return by how many degrees to turn the frames counterclockwise, from the first frame; 0, 90, 180 or 270."""
    with open_container(path) as container:
        for frame in container.decode(video_stream(container)):
            return round(frame.rotation / 90) % 4 * 90
    return 0


def import_av(path: str) -> Any:
    """Import PyAV. Raises UserError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"reading {path} requires PyAV: pip install 'openjepa[video]' (folders of frames need nothing)"
        ) from error
    return av


def av_errors() -> tuple[type[Exception], ...]:
    """Return what PyAV raises for damaged files."""
    av = import_av("video files")
    return (av.FFmpegError, UnicodeDecodeError, ValueError, MemoryError)


def describe_error(error: Exception) -> str:
    """Return in a few words why a file cannot be decoded."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"it is damaged or not a video ({text})"
