"""Choose the frames of a clip from the frames of a file, and crop them alike.   F frames of a clip"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from openjepa.data.crops import Crops, resample


@runtime_checkable
class ClipSettings(Protocol):
    """The part of the video modality that says which frames a clip has."""

    @property
    def frames(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def every(self) -> float: ...


class Span(NamedTuple):
    """The part of a file, in seconds from its first frame, in which a clip starts."""

    start: float = 0.0
    length: float = float("inf")


WHOLE_FILE = Span()


def choose_frames(
    config: ClipSettings, times: Float64[np.ndarray, "N"], u: float, span: Span = WHOLE_FILE
) -> Int64[np.ndarray, "F"]:
    """Return the indices of a clip's frames, at `u` from 0 to 1 between the first and the last possible start.

    `times` are the seconds of all frames of the file. A clip that reaches beyond the file repeats the last frame.
    Without a stride or a rate, it is spread evenly over the span, and `u` moves its frames by up to their distance. A
    whole file of as many frames as a clip is the clip.
    """
    if span == WHOLE_FILE and len(times) == config.frames:
        return np.arange(config.frames)
    first, last = np.searchsorted(times, (span.start, span.start + span.length)).tolist()
    first = min(first, len(times) - 1)
    last = max(last, first + 1)  # exclusive: starts lie before it, a clip may reach beyond
    steps = np.arange(config.frames)
    if config.fps:
        return frames_at_rate(config, times, u, first, last)
    if not config.stride:
        return first + ((steps + u) / config.frames * (last - first)).astype(np.int64)
    reach = (config.frames - 1) * config.stride
    starts = max(1, min(last, len(times) - reach) - first)
    start = first + min(int(u * starts), starts - 1)
    return np.minimum(start + steps * config.stride, len(times) - 1)


def frames_at_rate(
    config: ClipSettings, times: Float64[np.ndarray, "N"], u: float, first: int, last: int
) -> Int64[np.ndarray, "F"]:
    """Return the frames that are on screen at equal intervals of time, whatever the rate of the file."""
    reach = (config.frames - 1) / config.fps
    room = max(0.0, min(times[last - 1], times[-1] - reach) - times[first])
    instants = times[first] + u * room + np.arange(config.frames) / config.fps
    return frames_on_screen(times, instants)


def frames_on_screen(times: Float64[np.ndarray, "N"], instants: Float64[np.ndarray, "K"]) -> Int64[np.ndarray, "K"]:
    """Return for each instant the last frame that has begun."""
    return np.clip(np.searchsorted(times, instants + 1e-6, side="right") - 1, 0, len(times) - 1)


def crop_clips(clips: UInt8[Tensor, "B F C H W"], crop: Crops, size: tuple[int, int]) -> UInt8[Tensor, "B F C h w"]:
    """Cut the same box out of all frames of a clip and resize it to `size`."""
    return resample(clips.flatten(1, 2), crop, size).unflatten(1, clips.shape[1:3])


def segment_spans(times: Float64[np.ndarray, "N"], every: float) -> list[Span]:
    """Cut a file into spans of `every` seconds, each of them a sample; 0: the whole file is one."""
    if not every:
        return [WHOLE_FILE]
    count = max(1, int(np.ceil((times[-1] - times[0] + 1e-6) / every)))
    return [Span(number * every, every) for number in range(count)]


def clip_name(path: str, span: Span, every: float) -> str:
    """Name a clip of a file as a media fragment, FILE#t=SECONDS; the file alone if it is one clip."""
    return f"{path}#t={round(span.start, 4):.12g}" if every else path


def parse_clip_name(name: str) -> tuple[str, float | None]:
    """Split FILE#t=SECONDS into the file and the seconds; None: the whole file."""
    path, mark, seconds = name.rpartition("#t=")
    try:
        return (path, float(seconds)) if mark else (name, None)
    except ValueError:
        return name, None
