"""Number the frames of a video by its packets, without decoding them.   P packets  N frames  K keyframes

A packet is one compressed frame. Packets lie in the file in the order of decoding, frames are shown in the order of
their time stamps. A packet is known by its position and size in the file, whatever its time stamps say after a seek.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

MAX_FRAMES = 2**22  # 38 hours at 30 frames per second; more are refused

DEFAULT_RATE = 25.0  # frames per second of a file that states none

NO_STAMP = np.iinfo(np.int64).min

NOT_DISPLAYED = -1  # the number of a packet that is decoded for others alone


class Packets(NamedTuple):
    """What is known of each packet before any is decoded, in the order of the file."""

    extent: Int64[np.ndarray, "P 2"]  # position and size in bytes
    shown_at: Int64[np.ndarray, "P"]  # time stamp in units of the stream; NO_STAMP: missing
    decoded_at: Int64[np.ndarray, "P"]
    is_key: Bool[np.ndarray, "P"]  # decoding can start here
    is_hidden: Bool[np.ndarray, "P"]  # decoded, but never displayed


class FrameOrder(NamedTuple):
    """Which packet holds which frame, and when frames are displayed."""

    frame: Int64[np.ndarray, "P"]  # of each packet; NOT_DISPLAYED
    packet: Int64[np.ndarray, "N"]  # of each frame
    keys: Int64[np.ndarray, "K"]  # packets where decoding can start
    times: Float64[np.ndarray, "N"]  # seconds from the first frame
    has_stamps: bool  # False: times follow from the rate
    is_counted: bool  # the order of display is known by decoding from the start alone

    def start_of(self, frame: int) -> int:
        """Return the packet from which a frame can be decoded: of the last keyframe that is displayed no later."""
        before = self.keys[self.frame[self.keys] <= frame]
        return int(before[-1]) if len(before) else 0


def number_frames(packets: Packets, unit: float, rate: float, reorders: bool, is_avi: bool = False) -> FrameOrder:
    """Sort packets into the order of display; `unit`: seconds of a time stamp, `rate`: frames per second if missing.

    Without time stamps, the frames of a stream that does not reorder them are in the order of the file. AVI files have
    no time stamps: those in the order of the file were made up by the reader and say nothing about a stream that
    reorders its frames.
    """
    stamps = packets.shown_at
    if (stamps == NO_STAMP).any() and not reorders:
        stamps = packets.decoded_at
    visible = np.flatnonzero(~packets.is_hidden)
    has_stamps = len(visible) > 0 and bool((stamps[visible] != NO_STAMP).all())
    if is_avi and reorders and bool((np.diff(stamps[visible]) >= 0).all()):
        has_stamps = False
    packet = visible[np.argsort(stamps[visible], kind="stable")] if has_stamps else visible
    frame = np.full(len(stamps), NOT_DISPLAYED, np.int64)
    frame[packet] = np.arange(len(packet))
    times = np.arange(len(packet)) / (rate or DEFAULT_RATE)
    if has_stamps:
        times = (stamps[packet] - stamps[packet[0]]).astype(np.float64) * unit
    is_counted = not has_stamps and reorders
    keys = np.flatnonzero(packets.is_key & ~packets.is_hidden & (not is_counted))
    return FrameOrder(frame, packet, keys, times, has_stamps, is_counted)


def stack_packets(rows: list[tuple[Any, ...]]) -> Packets:
    """Return rows (position, size, time stamps of display and decoding, is a keyframe, is hidden) as columns."""
    table = np.array(rows, np.int64).reshape(-1, 6)
    return Packets(table[:, :2], table[:, 2], table[:, 3], table[:, 4] != 0, table[:, 5] != 0)


def split_runs(order: FrameOrder, frames: list[int], min_skip: int) -> list[tuple[int, list[int]]]:
    """Group sorted frames that are decoded in one go: (packet to start from, frames).

    A new run starts where a keyframe lets more than `min_skip` packets be left out.
    """
    runs: list[tuple[int, list[int]]] = []
    for frame in frames:
        start = order.start_of(frame)
        if runs and start <= order.packet[runs[-1][1][-1]] + min_skip:
            runs[-1][1].append(frame)
        else:
            runs.append((start, [frame]))
    return runs
