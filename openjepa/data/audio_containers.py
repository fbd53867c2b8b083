"""Decode the sound of video files and of compressed audio with PyAV.   C channels  S samples"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float32

from openjepa.data.image_opening import Undecodable
from openjepa.data.video_streams import (
    FORMATS,
    SeekableFile,
    Stream,
    decode_errors,
    describe_error,
    import_av,
    refuse_to_open,
)

SOUND_FORMATS = f"{FORMATS},mp3,aac,ac3,wav,aiff,flac,adts,caf"

LEAD = 1.0  # seconds before a stretch at which decoding starts, so that the decoder has settled


class ContainerSound:
    """The first sound stream of a container."""

    def __init__(self, stream: Stream):
        open_container, self.errors = import_av().open, decode_errors()
        options = {"format_whitelist": SOUND_FORMATS, "protocol_whitelist": "file"}
        try:
            self.container: Any = open_container(SeekableFile(stream), options=options, io_open=refuse_to_open)
        except self.errors as error:
            raise Undecodable(describe_error(error)) from error
        if not self.container.streams.audio:
            raise Undecodable("it has no sound")
        self.stream: Any = self.container.streams.audio[0]
        self.rate, self.channels = int(self.stream.rate or 0), int(self.stream.channels or 0)
        if not self.rate or not self.channels:
            raise Undecodable("its header states neither rate nor channels of its sound")
        self.codec = str(self.stream.codec_context.name)
        self.first, self.frames = self.extent()

    def extent(self) -> tuple[int, int]:
        """Return the time stamp of the first sample, in samples, and the number of samples."""
        base = self.stream.time_base
        first = round(float((self.stream.start_time or 0) * base) * self.rate)
        seconds = (
            float(self.stream.duration * base) if self.stream.duration else float(self.container.duration or 0) / 1e6
        )
        if seconds <= 0:
            raise Undecodable("its header does not state how long it is")
        return first, round(seconds * self.rate)

    def read(self, start: int, count: int) -> Float32[np.ndarray, "C S"]:
        """Decode samples from `start` on; gaps are silence."""
        values, end = np.zeros((self.channels, count), np.float32), 0
        try:
            seconds = max(0.0, (start + self.first) / self.rate - LEAD)
            self.container.seek(int(seconds / self.stream.time_base), backward=True, stream=self.stream)
            resampler = import_av().AudioResampler(format="fltp", layout=self.stream.layout, rate=self.rate)
            for frame in self.container.decode(self.stream):
                for part in resampler.resample(frame):
                    at = round(float(part.time or 0) * self.rate) - self.first - start
                    block = np.asarray(part.to_ndarray(), np.float32)
                    low, high = max(0, -at), min(block.shape[1], count - at)
                    if high > low:
                        values[:, at + low : at + high] = block[:, low:high]
                        end = max(end, at + high)
                    if at >= count:
                        return values
        except self.errors as error:
            if not end:
                raise Undecodable(describe_error(error)) from error
        return values[:, :end]
