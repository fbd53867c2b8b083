"""Clips that tests encode: each frame has its number in gray levels, so that it is known which frame was read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

SIZE = (48, 64)  # height and width

BITS = 7  # of a frame's number, each a bar of the picture, bright or dark

UNIT = Fraction(1, 1000)  # seconds of a time stamp

ENCODINGS: dict[str, tuple[str, str, dict[str, str]]] = {  # name -> container, codec, options
    "mp4 with B-frames": ("mp4", "libx264", {"bf": "3", "g": "10", "x264-params": "log-level=none"}),
    "mp4 with one keyframe": ("mp4", "libx264", {"bf": "0", "g": "250", "x264-params": "log-level=none"}),
    "fragmented mp4": ("mp4", "mpeg4", {"g": "10", "movflags": "frag_keyframe+empty_moov"}),
    "mov": ("mov", "mpeg4", {"bf": "2", "g": "10"}),
    "mkv": ("matroska", "libx264", {"bf": "2", "g": "10", "x264-params": "log-level=none"}),
    "webm": ("webm", "libvpx", {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "8", "b": "100k", "cpu-used": "8"}),
    "avi": ("avi", "mpeg4", {"g": "10"}),
    "avi with B-frames": ("avi", "libx264", {"bf": "2", "g": "10", "x264-params": "log-level=none"}),
    "motion jpeg": ("avi", "mjpeg", {}),
    "mpeg-1": ("mpeg", "mpeg1video", {"bf": "2", "g": "10"}),
    "transport stream": ("mpegts", "mpeg2video", {"bf": "2", "g": "10"}),
    "flv": ("flv", "flv", {"g": "10"}),
    "wmv": ("asf", "wmv2", {"g": "10"}),
    "stream without time stamps": ("h264", "libx264", {"bf": "2", "g": "10", "x264-params": "log-level=none"}),
    "raw": ("avi", "rawvideo", {}),
    "lossless": ("matroska", "ffv1", {"g": "10"}),
}


def numbered_frame(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Draw the bits of a number as bars."""
    bars = np.array([(number >> bit & 1) * 200 + 28 for bit in range(BITS)], np.uint8)
    row = bars[np.arange(size[1]) * BITS // size[1]]
    return np.broadcast_to(row[None, :, None], (*size, 3)).copy()


def number_of(frame: np.ndarray) -> int:
    """Read the number of a frame, of the size that it was drawn in."""
    width = frame.shape[1]
    centers = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    middle = frame[frame.shape[0] // 2, centers].astype(int).mean(-1)
    return sum(1 << bit for bit in range(BITS) if middle[bit] > 128)


def encode(
    name: str = "mp4 with B-frames",
    count: int = 40,
    size: tuple[int, int] = SIZE,
    stamps: Sequence[int] | None = None,  # in milliseconds; None: 40 apart
    sound: bool = False,
    **settings: Any,  # of the stream, such as its display rotation
) -> bytes:
    """Encode frames with the numbers 0, 1, 2, …"""
    import av

    container, codec, options = ENCODINGS[name]
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=movie_options(options)) as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = size  # type: ignore[union-attr]
        stream.pix_fmt = {"mjpeg": "yuvj420p"}.get(codec, "yuv420p")  # type: ignore[union-attr]
        if stamps is not None:
            stream.codec_context.time_base = UNIT
        turn = settings.pop("rotation", 0)
        for key, value in settings.items():
            setattr(stream.codec_context, key, value)
        if turn:
            stream.set_display_rotation(turn)  # type: ignore[union-attr]
        audio = output.add_stream("mp2" if container == "mpeg" else "aac", rate=44100) if sound else None
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, size), format="rgb24")
            frame.pts, frame.time_base = (number, Fraction(1, 25)) if stamps is None else (stamps[number], UNIT)
            output.mux(stream.encode(frame))  # type: ignore[union-attr]
        output.mux(stream.encode(None))  # type: ignore[union-attr]
        if audio is not None:
            write_silence(output, audio, seconds=count / 25)
    return file.getvalue()


def movie_options(options: dict[str, str]) -> dict[str, str]:
    """Take the options of the container out of those of the codec."""
    return {"movflags": options["movflags"]} if "movflags" in options else {}


def write_silence(output: Any, stream: Any, seconds: float) -> None:
    """Encode a sound track without sound."""
    import av

    for start in range(0, int(44100 * seconds), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 44100, start
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def encode_sound() -> bytes:
    """Encode a file that has sound alone."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        write_silence(output, output.add_stream("aac", rate=44100), 0.5)
    return file.getvalue()
