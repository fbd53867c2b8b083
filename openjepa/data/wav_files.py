"""Read WAV files of plain samples, also truncated ones, and write them.   C channels  S samples"""

from __future__ import annotations

import io
import os
import struct
import wave
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from openjepa.data.image_opening import Undecodable
from openjepa.data.video_streams import Stream

PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE

MAX_CHUNKS = 1000  # before the samples, after which a file counts as damaged

BYTE_TYPES = {  # of samples: (code, bits) -> numpy's type; 24 bits are read as bytes
    (PCM, 8): "u1", (PCM, 16): "<i2", (PCM, 24): "u1", (PCM, 32): "<i4", (FLOAT, 32): "<f4", (FLOAT, 64): "<f8",
    (A_LAW, 8): "u1", (MU_LAW, 8): "u1",
}  # fmt: skip


class WavForm(NamedTuple):
    """What the header of a WAV file says, and how many samples are there."""

    code: int  # of the encoding: PCM, FLOAT …
    rate: int  # samples per second
    channels: int
    bits: int
    start: int  # position of the first sample in the file
    frames: int  # samples of each channel that the file has
    stated: int  # samples of each channel by the header; -1: not stated

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.bits // 8

    @property
    def is_plain(self) -> bool:
        """Return whether the samples can be read without a decoder."""
        return (self.code, self.bits) in BYTE_TYPES


def read_form(stream: Stream) -> WavForm:
    """Read the header of a WAV file. Raises Undecodable if it has no samples or the header is damaged."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(12)
    form: tuple[int, int, int, int] | None = None
    for _ in range(MAX_CHUNKS):
        head = stream.read(8)
        if len(head) < 8:
            raise Undecodable("its header is damaged: it has no samples")
        name, length = head[:4], struct.unpack("<I", head[4:])[0]
        start = stream.tell()
        if name == b"fmt ":
            form = parse_form(stream.read(min(length, 64)))
        elif name == b"data":
            return with_samples(form, start, length, size)
        stream.seek(start + length + length % 2)
    raise Undecodable("its header is damaged: it has no samples")


def parse_form(content: bytes) -> tuple[int, int, int, int]:
    """Return encoding, rate, channels and bits of a sample. Raises Undecodable."""
    if len(content) < 16:
        raise Undecodable("its header is damaged: the format of its samples is missing")
    code, channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
    if code == EXTENSIBLE and len(content) >= 26:
        code = struct.unpack("<H", content[24:26])[0]
    if not 0 < channels <= 64 or not 0 < rate <= 10_000_000:
        raise Undecodable(f"its header is damaged: {channels} channels at {rate} Hz")
    return code, rate, channels, bits


def with_samples(form: tuple[int, int, int, int] | None, start: int, length: int, size: int) -> WavForm:
    """Return the form of a file of `size` bytes, whose samples start at `start` and have `length` bytes by the header.

    A recording that was interrupted states 0, or the largest number.
    """
    if form is None:
        raise Undecodable("its header is damaged: the format of its samples is missing")
    code, rate, channels, bits = form
    is_stated = 0 < length < 0xFFFFFFFF - 64 or (length == 0 and size == start)
    frame_bytes = max(1, channels * bits // 8)
    stored = min(size - start, length) if is_stated else size - start
    return WavForm(code, rate, channels, bits, start, stored // frame_bytes, length // frame_bytes if is_stated else -1)


def read_samples(stream: Stream, form: WavForm, start: int, count: int) -> Float32[np.ndarray, "C S"]:
    """Read samples from `start` on, full scale as 1; fewer where the file ends."""
    stream.seek(form.start + start * form.frame_bytes)
    content = stream.read(max(0, min(count, form.frames - start)) * form.frame_bytes)
    content = content[: len(content) // form.frame_bytes * form.frame_bytes]
    values = np.frombuffer(content, BYTE_TYPES[form.code, form.bits])
    return np.ascontiguousarray(to_float(values, form).reshape(-1, form.channels).T)


def to_float(values: np.ndarray, form: WavForm) -> Float32[np.ndarray, "K"]:
    """Convert stored values to full scale 1."""
    if form.code == FLOAT:
        with np.errstate(over="ignore"):  # what overflows is damaged
            return values.astype(np.float32)
    if form.code in (A_LAW, MU_LAW):
        return (decode_a_law if form.code == A_LAW else decode_mu_law)(values)
    if form.bits == 8:
        return (values.astype(np.float32) - 128) / 128
    if form.bits == 24:
        low, middle, high = values.reshape(-1, 3).astype(np.int32).T
        values = (low | middle << 8 | high << 16) << 8 >> 8
    with np.errstate(over="ignore"):  # what overflows is damaged
        return values.astype(np.float32) / np.float32(2 ** (form.bits - 1))


def decode_mu_law(values: np.ndarray) -> Float32[np.ndarray, "K"]:
    """Decode mu-law bytes. Source: ITU-T G.711."""
    code = ~values
    exponent, mantissa = (code >> 4) & 7, code & 15
    size = ((mantissa.astype(np.int32) << 3) + 132 << exponent.astype(np.int32)) - 132
    return (np.where(code & 128, -size, size) / 32768).astype(np.float32)


def decode_a_law(values: np.ndarray) -> Float32[np.ndarray, "K"]:
    """Decode A-law bytes. Source: ITU-T G.711."""
    code = values ^ 0x55
    exponent, mantissa = ((code >> 4) & 7).astype(np.int32), (code & 15).astype(np.int32)
    size = np.where(exponent == 0, (mantissa << 4) + 8, (mantissa << 4) + 264 << np.maximum(exponent - 1, 0))
    return (np.where(code & 128, size, -size) / 32768).astype(np.float32)


def wav_content(values: Float[np.ndarray, "S"], rate: int) -> bytes:
    """Return a mono WAV file of 16 bits; full scale is 1."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(values, -1, 1) * 32767).round().astype("<i2").tobytes())
    return stream.getvalue()
