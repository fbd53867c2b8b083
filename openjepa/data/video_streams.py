"""Open video files with PyAV, safely, and turn decoded frames into pixels.   C channels  H height  W width"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from openjepa.data.image_opening import Undecodable

MAX_FRAME_PIXELS = 2**25  # 7,680×4,320 and a little more; larger frames count as a decompression bomb

FORMATS = (  # of ffmpeg; those that open other files by name, such as playlists, are left out
    "mov,matroska,avi,mpeg,mpegvideo,mpegts,mpegtsraw,flv,asf,ogg,nut,h264,hevc,m4v,mjpeg,yuv4mpegpipe,ivf,obu,h261,"
    "h263,mxf,rm,dv,swf,vc1,av1"
)

STATE_DURATION = ("matroska", "flv", "asf", "nut")  # formats whose header has the duration, but no number of frames

BUFFER_BYTES = 2**16  # per read of the file

STRETCH = 4.0  # times as wide as high, or the reverse: pixels beyond that count as an error of the header

FORMAT_OF_CHANNELS = {1: "gray", 3: "rgb24"}


Stream = io.BufferedReader | io.BytesIO  # a file, or a member of an archive


class FrameForm(NamedTuple):
    """How decoded frames are drawn: scaled to square pixels, then turned upright."""

    width: int  # pixels before turning
    height: int
    transposed: bool = False
    mirrored: bool = False  # left and right, after transposing
    flipped: bool = False  # top and bottom, after transposing
    is_stretched: bool = False  # its pixels are not square

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width as displayed."""
        return (self.width, self.height) if self.transposed else (self.height, self.width)

    @property
    def is_turned(self) -> bool:
        return self.transposed or self.mirrored or self.flipped


def has_av() -> bool:
    """Return whether PyAV, the extra `video`, is installed."""
    return find_spec("av") is not None


def import_av() -> Any:
    """Import PyAV, which takes a tenth of a second, at the first video file."""
    import av
    import av.error
    import av.stream
    import av.video.reformatter

    return av


def decode_errors() -> tuple[type[Exception], ...]:
    """Return what PyAV raises on damaged files."""
    return (import_av().error.FFmpegError, ValueError, MemoryError, OverflowError, EOFError, RuntimeError)


def refuse_to_open(url: str, flags: int, options: dict[str, str]) -> None:
    """Refuse the files that a file names, whoever wrote it."""
    raise Undecodable(f"it refers to another file ({url}), which is not opened")


class SeekableFile:
    """A file for PyAV. A seek to before the start comes from a damaged header: it raises ValueError, not OSError."""

    def __init__(self, stream: Stream):
        self.stream, self.read, self.tell = stream, stream.read, stream.tell

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self.stream.seek(offset, whence)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise ValueError(f"a position outside the file, {offset}") from error


class OpenVideo:
    """A container with its video stream, read by one thread."""

    def __init__(self, stream: Stream):
        self.file, self.errors, self.damage = stream, decode_errors(), ""
        self.container: Any = None
        self.start()

    def start(self) -> None:
        """Open the file at its start, also again."""
        self.close()
        self.file.seek(0)
        open_container = import_av().open
        options = {"max_pixels": str(MAX_FRAME_PIXELS), "format_whitelist": FORMATS, "protocol_whitelist": "file"}
        try:
            self.container = open_container(
                SeekableFile(self.file),
                options=options,
                metadata_errors="replace",
                buffer_size=BUFFER_BYTES,
                io_open=refuse_to_open,
            )
        except self.errors as error:
            raise Undecodable(describe_error(error)) from error
        self.stream = self.find_stream()
        self.codec = self.stream.codec_context
        check_frame_size(self.codec.width, self.codec.height)
        self.codec.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
        if self.codec_name == "mjpeg":  # else the lost part of a frame shows what memory held before
            self.codec.options |= {"err_detect": "explode"}
        self.codec.thread_count = 1  # loader workers are processes
        self.is_fresh = True

    @property
    def codec_name(self) -> str:
        """Return the name of the format of the frames, whichever decoder reads it."""
        return self.codec.codec.canonical_name

    def stated_seconds(self) -> float:
        """Return the duration in the header; 0 where it is estimated, or that of another stream."""
        is_stated = self.container.format.name.split(",")[0] in STATE_DURATION and len(self.container.streams) == 1
        return (self.container.duration or 0) / 1e6 if is_stated else 0.0

    def find_stream(self) -> Any:
        """Return the first video stream that is no cover picture; others are not read."""
        streams = self.container.streams
        marks = import_av().stream
        attached = marks.Disposition.attached_pic
        videos = [each for each in streams.video if not each.disposition & attached]
        if not videos:
            kinds = "audio only" if len(streams.audio) else "no video stream"
            raise Undecodable(f"it has {kinds}{', with a cover picture' if len(streams.video) else ''}")
        for each in streams:
            if each.index != videos[0].index:
                each.discard = marks.Discard.all
        if videos[0].codec_context is None:
            raise Undecodable("it has a codec that PyAV does not know: convert it to H.264")
        return videos[0]

    def packets(self) -> Iterator[Any]:
        """Yield the packets from here to the end, or to damage, whose reason is then in `damage`."""
        self.is_fresh = False
        try:
            yield from (packet for packet in self.container.demux(self.stream) if packet.size)
        except self.errors as error:
            self.damage = describe_error(error)

    def rewind(self) -> Iterator[Any]:
        """Yield all packets."""
        if not self.is_fresh:
            self.start()
        return self.packets()

    def packets_at(self, stamp: int, extent: tuple[int, int]) -> Iterator[Any] | None:
        """Return the packets from one time stamp, position and size on; None if a seek does not lead there."""
        self.is_fresh = False
        try:
            self.container.seek(stamp, stream=self.stream, backward=True)
        except self.errors:
            return None
        packets = self.packets()
        for packet in packets:
            if (packet.pos, packet.size) == extent:
                return prepend(packet, packets)
            if packet.pos is not None and packet.pos > extent[0]:
                return None
        return None

    def decode(self, packet: Any) -> list[Any]:
        """Return the frames that a packet completes, none if it is damaged; None flushes the decoder."""
        try:
            return self.codec.decode(packet)
        except self.errors:
            return []

    def close(self) -> None:
        if self.container is not None:
            self.container.close()
            self.container = None


def prepend(first: Any, others: Iterator[Any]) -> Iterator[Any]:
    """Yield one value, then the others."""
    yield first
    yield from others


def check_frame_size(width: int, height: int) -> None:
    """Raise Undecodable if frames have more pixels than are decoded."""
    if width * height > MAX_FRAME_PIXELS:
        raise Undecodable(
            f"{width}×{height} pixels, more than {MAX_FRAME_PIXELS // 10**6} million: scale it down "
            "(or a decompression bomb?)"
        )


def frame_form(frame: Any, stream: Any) -> FrameForm:
    """Return how frames like this one are drawn: pixels become square as high as they are, and its matrix turns it."""
    aspect = float(stream.sample_aspect_ratio or 1)
    aspect = aspect if 1 / STRETCH <= aspect <= STRETCH else 1.0
    width = max(1, round(frame.width * aspect))
    check_frame_size(width, frame.height)
    return FrameForm(width, frame.height, *turns_of(frame), is_stretched=width != frame.width)


def turns_of(frame: Any) -> tuple[bool, bool, bool]:
    """Return whether to transpose, mirror and flip a frame, from the quarter turns of its display matrix."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None or len(bytes(data)) < 36:
        return False, False, False
    matrix = np.frombuffer(bytes(data), np.int32, 9)
    a, b, c, d = (int(matrix[at]) for at in (0, 1, 3, 4))  # (x, y) -> (a·x + c·y, b·x + d·y)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


class PixelReader:
    """Turns decoded frames into pixels with one converter, whose set-up takes longer than a small frame."""

    def __init__(self, form: FrameForm, channels: int):
        self.form, self.channels = form, channels
        self.converter = import_av().video.reformatter.VideoReformatter()

    def read(self, frame: Any) -> UInt8[np.ndarray, "H W C"]:
        """Return the pixels of a frame, upright and of the size of the first one."""
        form = self.form
        converted = self.converter.reformat(
            frame, form.width, form.height, FORMAT_OF_CHANNELS[self.channels], threads=1
        )
        return turn_upright(converted.to_ndarray().reshape(form.height, form.width, self.channels), form)


def turn_upright(pixels: UInt8[np.ndarray, "h w C"], form: FrameForm) -> UInt8[np.ndarray, "H W C"]:
    """Transpose and mirror the pixels of a frame as its form says."""
    if form.transposed:
        pixels = pixels.swapaxes(0, 1)
    return pixels[:: -1 if form.flipped else 1, :: -1 if form.mirrored else 1]


def describe_error(error: Exception) -> str:
    """Return one sentence on a file that PyAV cannot read."""
    text = str(getattr(error, "strerror", None) or error).strip().splitlines()
    reason = "it is damaged, or of a format that is not read"
    return f"{reason} ({text[0]})" if text else reason
