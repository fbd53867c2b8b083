"""Open recordings: WAV files, formats of soundfile, and the sound of video files.   C channels  S samples"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from openjepa.core.errors import UserError
from openjepa.data.archives import parse_address
from openjepa.data.audio_containers import ContainerSound
from openjepa.data.audio_formats import PLAIN_SUFFIXES, SOUNDFILE_SUFFIXES, audio_format
from openjepa.data.image_formats import SNIFF_BYTES
from openjepa.data.image_io import read_bytes, retry_reading
from openjepa.data.image_opening import Undecodable
from openjepa.data.video_streams import Stream, has_av
from openjepa.data.walking import path_suffix
from openjepa.data.wav_files import WavForm, read_form, read_samples

LARGEST = 1e6  # of a value, of a full scale of 1; some recordings in floating point have a full scale of 32,768

MAX_SAMPLES = 2**29  # of one call, over all channels

STDERR = threading.Lock()  # held while nothing is printed to the standard error


@runtime_checkable
class Sound(Protocol):
    """An open recording."""

    @property
    def rate(self) -> int:
        """Return samples per second."""
        ...

    @property
    def channels(self) -> int: ...

    @property
    def frames(self) -> int:
        """Return the samples of each channel; of some formats as the header states them."""
        ...

    @property
    def codec(self) -> str: ...

    def read(self, start: int, count: int) -> Float32[np.ndarray, "C S"]:
        """Read samples from `start` on, full scale as 1; fewer where the recording ends. Raises Undecodable."""
        ...


class WavSound:
    """A WAV file of plain samples."""

    def __init__(self, stream: Stream, form: WavForm):
        self.stream, self.form = stream, form
        self.rate, self.channels, self.frames = form.rate, form.channels, form.frames
        self.codec = f"WAV, {form.bits} bit"

    def read(self, start: int, count: int) -> Float32[np.ndarray, "C S"]:
        return read_samples(self.stream, self.form, start, count)


class SoundfileSound:
    """A recording that libsndfile decodes."""

    def __init__(self, stream: Stream):
        import soundfile

        try:
            self.file = soundfile.SoundFile(stream)
        except (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError) as error:
            raise Undecodable(f"it cannot be decoded: {error}") from error
        self.errors: tuple[type[Exception], ...] = (soundfile.LibsndfileError, RuntimeError, ValueError)
        self.rate, self.channels, self.frames = self.file.samplerate, self.file.channels, self.file.frames
        self.codec = f"{self.file.format}, {self.file.subtype}"
        if self.frames <= 0:
            raise Undecodable("it has no samples")

    def read(self, start: int, count: int) -> Float32[np.ndarray, "C S"]:
        try:
            with without_stderr() if start and self.file.format == "MP3" else nullcontext():
                self.file.seek(min(start, self.frames))
                return np.ascontiguousarray(self.file.read(count, "float32", always_2d=True).T)
        except self.errors as error:
            raise Undecodable(f"it cannot be decoded from second {start / self.rate:.1f} on: {error}") from error


@contextmanager
def without_stderr() -> Iterator[None]:
    """Discard what is printed to the standard error: libmpg123 complains of each frame that it skips after a seek."""
    with STDERR, open(os.devnull, "w") as nothing:  # noqa: PTH123 (a device)
        stderr = os.dup(2)
        os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextmanager
def open_sound(path: str) -> Iterator[Sound]:
    """Open a recording, of disk or in an archive.

    Raises:
        Undecodable: it has no samples that can be decoded, or needs an extra; the message is the reason.
        OSError: it cannot be read.
    """
    with ExitStack() as stack:
        stream = stack.enter_context(open_file(path))
        yield sound_of(path, stream)


def open_file(path: str) -> Stream:
    """Open a file, or the bytes of a member of an archive."""
    if parse_address(path):
        return io.BytesIO(read_bytes(path))
    return retry_reading(path, lambda: open(path, "rb"))  # noqa: PTH123 (speed; the caller closes it)


def sound_of(path: str, stream: Stream) -> Sound:
    """Return the sound of an open file by its first bytes. Raises Undecodable."""
    first = stream.read(SNIFF_BYTES)
    stream.seek(0)
    name = audio_format(first)
    if not first:
        raise Undecodable("it is empty")
    if name == "WAV" and first[:4] == b"RIFF":
        form = read_form(stream)
        if form.is_plain:
            if not form.frames:
                raise Undecodable("it has no samples")
            return WavSound(stream, form)
        stream.seek(0)
    if not name and path_suffix(path) in PLAIN_SUFFIXES:
        raise Undecodable("its header is damaged, or it is no recording")
    if name or path_suffix(path) in SOUNDFILE_SUFFIXES:
        if find_spec("soundfile") is None:
            raise Undecodable(f"reading {file_name(path)} needs soundfile: pip install 'openjepa[audio]'")
        return SoundfileSound(stream)
    if not has_av():
        raise Undecodable(f"reading the sound of {file_name(path)} needs PyAV: pip install 'openjepa[video]'")
    return ContainerSound(stream)


def file_name(path: str) -> str:
    """Return the name of a file, or of a member of an archive."""
    address = parse_address(path)
    return PurePosixPath(address.name if address else path).name


def read_stretch(sound: Sound, start: int, count: int, channels: int) -> Float32[np.ndarray, "c S"]:
    """Read `count` samples at the rate of the file, silence outside the recording, in so many channels.

    Fewer channels than the recording has are the mean of all; a single one is repeated. Damaged values count as
    silence. Raises Undecodable.
    """
    if count * sound.channels > MAX_SAMPLES:
        raise Undecodable(f"{count / sound.rate:.0f} seconds of {sound.channels} channels are too long to read at once")
    first, last = max(0, start), min(start + count, sound.frames)
    values = sound.read(first, last - first) if last > first else np.zeros((sound.channels, 0), np.float32)
    if not values.shape[1] and last > first:
        raise Undecodable(f"it is truncated: nothing can be decoded from second {first / sound.rate:.1f} on")
    damaged = find_damaged(values)
    if damaged.any():
        values = np.where(damaged, np.float32(0), values)
    padded = np.pad(mix(values, channels), ((0, 0), (first - start, 0)))
    return np.pad(padded, ((0, 0), (0, max(0, count - padded.shape[1]))))


def find_damaged(values: Float32[np.ndarray, "C S"]) -> Bool[np.ndarray, "C S"]:
    """Return which values are not finite, or so large that no recording has them and a spectrogram would overflow."""
    return ~(np.abs(values) <= LARGEST)


def mix(values: Float32[np.ndarray, "C S"], channels: int) -> Float32[np.ndarray, "c S"]:
    """Return a recording in so many channels. Raises Undecodable if it has fewer, but several."""
    if len(values) == channels:
        return values
    if channels == 1:
        return values.mean(0, keepdims=True)
    if len(values) == 1:
        return values.repeat(channels, 0)
    raise Undecodable(f"it has {len(values)} channels, not {channels}: try --data.channels 1")


def resample(
    values: Float32[np.ndarray, "C S"], rate: float | int, new_rate: int, count: int
) -> Float32[np.ndarray, "C L"]:
    """Change the sampling rate with soxr, and return exactly `count` samples of each channel.

    Raises UserError if soxr is not installed.
    """
    if rate == new_rate:
        return values[:, :count]
    try:
        import soxr
    except ImportError as error:
        raise UserError(
            f"recordings at {rate:g} Hz are resampled to {new_rate:g} Hz by soxr: pip install 'openjepa[audio]', or "
            f"keep their rate: --data.rate {rate:g}"
        ) from error
    result = soxr.resample(values.T, rate, new_rate).T
    return np.pad(result, ((0, 0), (0, max(0, count - result.shape[1]))))[:, :count].astype(np.float32, copy=False)
