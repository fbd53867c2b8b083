"""Decode frames of video files with PyAV, only those that are needed.   K frames  C channels  H height  W width

Every frame is what it is when the whole file is decoded from its start: decoding starts at a keyframe, and at the start
of the file where that does not give the frame. A frame that is too damaged to be decoded is the one before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from openjepa.data.image_opening import Undecodable
from openjepa.data.video_index import MAX_FRAMES, NO_STAMP, FrameOrder, number_frames, split_runs, stack_packets
from openjepa.data.video_streams import FrameForm, OpenVideo, PixelReader, frame_form

MIN_SKIP = 8  # packets that a seek must leave out to be quicker than decoding them

MAX_CLIP_BYTES = 2**31  # of the decoded frames of one call

MAX_FAILING = 1000  # packets from the start without a frame that can be decoded, after which the file is given up


class VideoIndex(NamedTuple):
    """What is known of a file after its packets were read and its first frame was decoded.   P packets"""

    order: FrameOrder
    extent: Int64[np.ndarray, "P 2"]  # position and size in bytes
    stamps: Int64[np.ndarray, "P"]  # to seek
    form: FrameForm
    codec: str
    rate: float  # frames per second by the header; 0: not stated
    declared: int  # frames by the header; 0: not stated
    seconds: float  # by the header; 0: not stated
    damage: str  # why reading ended early; "" if it did not


def index_video(video: OpenVideo) -> VideoIndex:
    """Read all packets of a file and decode its first frame.

    Raises:
        Undecodable: it has no frames, or too many, or none that can be decoded.
    """
    rows, form = [], None
    for packet in video.rewind():
        rows.append(describe_packet(packet, video.codec_name))
        if form is None and len(rows) <= MAX_FAILING:
            form = next((frame_form(frame, video.stream) for frame in video.decode(packet)), None)
        if len(rows) > MAX_FRAMES:
            raise Undecodable(f"it has more than {MAX_FRAMES:,} frames: cut it into shorter files")
    if not rows:
        raise Undecodable(f"it has no frames{f': {video.damage}' if video.damage else ': an interrupted recording?'}")
    if form is None:
        form = next((frame_form(frame, video.stream) for frame in video.decode(None)), None)
    packets = stack_packets(rows)
    rate = float(video.stream.average_rate or video.stream.guessed_rate or 0)
    unit, is_avi = float(video.stream.time_base or 0), video.container.format.name == "avi"
    order = number_frames(packets, unit, rate, bool(video.codec.has_b_frames), is_avi)
    if form is None or not len(order.times):
        raise Undecodable(f"none of its {len(rows)} frames can be decoded: its {video.codec_name} data is damaged")
    stamps = np.where(packets.shown_at == NO_STAMP, packets.decoded_at, packets.shown_at)
    return VideoIndex(
        order, packets.extent, stamps, form, video.codec_name, rate, video.stream.frames, video.stated_seconds(),
        video.damage,
    )  # fmt: skip


def describe_packet(packet: Any, codec: str) -> tuple[int, int, int, int, bool, bool]:
    """Return a row of Packets; a VP8 frame that is only a reference says so in its first byte."""
    is_hidden = packet.is_discard or (codec == "vp8" and not memoryview(packet)[0] & 0x10)
    shown_at, decoded_at = (NO_STAMP if each is None else each for each in (packet.pts, packet.dts))
    position = -1 if packet.pos is None else packet.pos
    return position, packet.size, shown_at, decoded_at, packet.is_keyframe, is_hidden


class ContainerFrames:
    """The frames of an open video file."""

    def __init__(self, video: OpenVideo, index: VideoIndex, channels: int):
        self.video, self.index, self.channels = video, index, channels
        self.pixels = PixelReader(index.form, channels)

    @property
    def times(self) -> Float64[np.ndarray, "N"]:
        return self.index.order.times

    @property
    def size(self) -> tuple[int, int]:
        return self.index.form.size

    def __enter__(self) -> ContainerFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.video.close()
        self.video.file.close()

    def read(self, index: list[int]) -> UInt8[np.ndarray, "K H W C"]:
        """Decode the frames with these numbers, which are sorted and may repeat. Raises Undecodable."""
        check_clip_bytes(len(index), self.size, self.channels)
        pictures: dict[int, np.ndarray] = {}
        needed = sorted(set(index))
        for start, frames in split_runs(self.index.order, needed, MIN_SKIP):
            pictures |= self.decode_run(start, frames)
        if missing := [frame for frame in needed if frame not in pictures]:
            pictures |= self.decode_run(0, missing, fill=True)
        if len(pictures) < len(needed):
            raise Undecodable(f"none of its frames can be decoded: its {self.index.codec} data is damaged")
        return np.stack([pictures[frame] for frame in index])

    def decode_run(self, start: int, needed: list[int], fill: bool = False) -> dict[int, UInt8[np.ndarray, "H W C"]]:
        """Decode frames from a packet on, up to the first that is missing; with `fill`, it is the one before it."""
        pictures, pending, held = {}, deque(needed), None
        for number, frame in self.frames_from(start, set() if fill else set(needed)):
            while pending and number > pending[0]:  # the decoder has left it out
                if not fill:
                    return pictures
                pictures[pending.popleft()] = self.pixels.read(frame if held is None else held)
            if pending and number == pending[0]:
                if frame.is_corrupt and not fill:
                    return pictures
                pictures[pending.popleft()] = self.pixels.read(frame)
            held = frame
            if not pending:
                return pictures
        if held is not None and fill:
            pictures |= dict.fromkeys(pending, self.pixels.read(held))
        return pictures

    def frames_from(self, start: int, needed: set[int]) -> Iterator[tuple[int, Any]]:
        """Yield number and frame of what is decoded from a packet on, in the order of display.

        With needed frames, others that no frame refers to are left out.
        """
        count, is_counted = 0, self.index.order.is_counted
        for packet in self.numbered_packets(start):
            is_wanted = packet is None or not needed or is_counted or packet.pts in needed
            self.video.codec.skip_frame = "DEFAULT" if is_wanted else "NONREF"
            for frame in self.video.decode(packet):
                yield (count if is_counted else -1 if frame.pts is None else frame.pts), frame
                count += 1

    def numbered_packets(self, start: int) -> Iterator[Any]:
        """Yield packets with their frames' numbers as time stamps, and at the end None, which flushes the decoder."""
        order = self.index.order
        for packet, number in zip(self.packets_from(start), order.frame[start:].tolist(), strict=False):
            packet.pts, packet.dts = (None if order.is_counted else number), None
            yield packet
        yield None

    def packets_from(self, start: int) -> Iterator[Any]:
        """Yield the packets of a file from one on: after a seek, or by counting where a seek does not lead there."""
        position, size = self.index.extent[start].tolist()
        is_unique = (self.index.extent == (position, size)).all(1).sum() == 1
        stamp = int(self.index.stamps[start])
        can_seek = start and position >= 0 and is_unique and stamp != NO_STAMP
        if can_seek and (packets := self.video.packets_at(stamp, (position, size))):
            return packets
        packets = self.video.rewind()
        deque(islice(packets, start), maxlen=0)  # skips them
        return packets


def check_clip_bytes(count: int, size: tuple[int, int], channels: int) -> None:
    """Raise Undecodable if so many decoded frames need more than MAX_CLIP_BYTES."""
    needed = count * size[0] * size[1] * channels
    if needed > MAX_CLIP_BYTES:
        raise Undecodable(
            f"{count} frames of {size[1]}×{size[0]} pixels need {needed / 2**30:.1f} GiB, more than "
            f"{MAX_CLIP_BYTES // 2**30}: scale the file down once"
        )
