"""Recordings as data sets: stretches of files, or of recordings in memory.

B batch  S samples of a data set  C channels  L values of a stretch
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Samples
from openjepa.data.audio_io import Sound, open_sound, read_stretch, resample
from openjepa.data.clips import WHOLE_FILE, Span
from openjepa.data.cut_files import CutFiles, evaluation_starts
from openjepa.data.file_labels import FileLabels

OCTAVES = 6  # at which an equalizer draws its curve


@runtime_checkable
class AudioViews(Protocol):
    """The part of the audio modality that a dataset needs: rate and length of a stretch, and random changes."""

    @property
    def rate(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def every(self) -> float: ...
    @property
    def eval_clips(self) -> int: ...
    @property
    def gain(self) -> float: ...
    @property
    def short(self) -> Literal["repeat", "silence"]: ...
    @property
    def equalizer(self) -> float: ...
    @property
    def speed(self) -> tuple[float, float]: ...


class Stretch(NamedTuple):
    """What is read of a recording: where, and how it is changed."""

    start: float  # from 0 to 1: of the possible starts, or where a shorter recording lies in the stretch
    speed: float = 1.0  # of playback: a higher one is shorter, and higher in pitch
    gain: float = 0.0  # decibels
    curve: tuple[float, ...] = ()  # decibels at evenly spaced octaves, by which an equalizer changes the spectrum


class AudioArray:
    """Recordings in memory, all of the same length, at the rate of the views."""

    groups: Int[Tensor, "S"] | None = None

    def __init__(
        self,
        config: AudioViews,
        sounds: Float[Tensor, "S C L"],
        label: Int[Tensor, "S"],
        fingerprint: str,
        classes: tuple[str, ...] = (),
    ):
        self.config, self.sounds, self.label = config, sounds, label
        self.fingerprint, self.classes = fingerprint, classes

    def __len__(self) -> int:
        return len(self.sounds)

    def source(self, index: int) -> str:
        return str(index)

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        """Read random stretches; without `rng`, the evaluation views."""
        rows = [
            [cut(self.config, self.sounds[sample].numpy(), stretch) for stretch in stretches]
            for sample, stretches in zip(index.tolist(), draw_stretches(self.config, len(index), rng), strict=True)
        ]
        return Samples(torch.from_numpy(np.stack([np.stack(row) for row in rows])).unbind(1), self.label[index])


class AudioFiles(CutFiles):
    """Stretches of recordings: one per file, or one for every so many seconds.

    Training reads a stretch anywhere in its part of the file; evaluation reads the middle, or several, evenly spaced.
    A shorter recording is repeated, or lies in silence: at a random place, or in the middle.
    """

    def __init__(
        self,
        config: AudioViews,
        paths: list[str],
        fingerprint: str | Callable[[], str],
        labels: FileLabels | None = None,
    ):
        self.config = config
        super().__init__(config, paths, fingerprint, labels)

    def spans_of(self, path: str) -> list[Span]:
        """Return the parts of a recording that are samples. Raises Undecodable."""
        with open_sound(path) as sound:
            count = max(1, math.ceil(sound.frames / sound.rate / self.every - 1e-6))
        return [Span(number * self.every, self.every) for number in range(count)]

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        """Decode random stretches of a batch; without `rng`, return the evaluation views with their labels."""
        stretches = draw_stretches(self.config, len(index), rng)
        decoded = [
            self.decode_or_replace(sample, stretches[row], rng and rng.select(np.array([row])))
            for row, sample in enumerate(index.tolist())
        ]
        views, skipped = np.stack([each for each, _ in decoded]), [each for _, each in decoded]
        label = self.labels_of(index, skipped, rng)
        return Samples(torch.from_numpy(views).unbind(1), label, tuple(itertools.chain(*skipped)))

    def decode_sample(self, sample: int, views: list[Stretch]) -> Float32[np.ndarray, "V C L"]:
        """Decode stretches of a sample. Raises Undecodable."""
        with open_sound(self.paths[self.file_index[sample]]) as sound:
            return np.stack([decode(self.config, sound, each, self.spans[sample]) for each in views])

    def blank(self, views: int) -> Float32[np.ndarray, "V C L"]:
        """Return stretches of silence."""
        return np.zeros((views, self.config.channels, self.config.samples), np.float32)


def draw_stretches(config: AudioViews, count: int, rng: CounterRNG | None) -> list[list[Stretch]]:
    """Draw a stretch of each of some samples; without `rng`, return the evaluation stretches, alike for all."""
    if rng is None:
        return [[Stretch(start) for start in evaluation_starts(config.eval_clips)]] * count
    start, speed, gain = (rng.uniform(f"stretch {name}") for name in ("start", "speed", "gain"))
    low, high = config.speed
    speeds, gains = low * (high / low) ** speed, (2 * gain - 1) * config.gain
    curves = (2 * rng.uniform("stretch curve", OCTAVES) - 1) * config.equalizer
    rows = zip(start.tolist(), speeds.tolist(), gains.tolist(), curves.tolist(), strict=True)
    return [[Stretch(u, own, level, tuple(curve) if config.equalizer else ())] for u, own, level, curve in rows]


def decode(config: AudioViews, sound: Sound, stretch: Stretch, span: Span = WHOLE_FILE) -> Float32[np.ndarray, "C L"]:
    """Decode a stretch of a part of a recording, at the rate of the views. Raises Undecodable."""
    count = math.ceil(config.samples * stretch.speed * sound.rate / config.rate)
    end = min(sound.frames, (span.start + span.length) * sound.rate)
    start = start_of(stretch.start, round(span.start * sound.rate), round(end), count, sound.frames)
    if start < 0 and config.short == "repeat":
        values = repeat(read_stretch(sound, 0, sound.frames, config.channels), start, count)
    else:
        values = read_stretch(sound, start, count, config.channels)
    return change(config, values, sound.rate, stretch)


def cut(config: AudioViews, values: Float32[np.ndarray, "C S"], stretch: Stretch) -> Float32[np.ndarray, "C L"]:
    """Cut a stretch out of a recording in memory, which has the rate of the views."""
    count, total = math.ceil(config.samples * stretch.speed), values.shape[1]
    start = start_of(stretch.start, 0, total, count, total)
    if start < 0 and config.short == "repeat":
        return change(config, repeat(values, start, count), config.rate, stretch)
    inside, before = values[:, max(0, start) : start + count], max(0, -start)
    padded = np.pad(inside, ((0, 0), (before, count - before - inside.shape[1])))
    return change(config, padded, config.rate, stretch)


def repeat(values: Float32[np.ndarray, "C S"], start: int, count: int) -> Float32[np.ndarray, "C L"]:
    """Return `count` values of a recording that repeats without end, from a start before it."""
    return np.take(values, np.arange(start, start + count) % values.shape[1], axis=1)


def start_of(u: float, first: int, last: int, count: int, total: int) -> int:
    """Return where a stretch of `count` values starts, `u` from 0 to 1 between the first and the last possible place.

    Of a recording with `total` values, the stretch lies inside; of a part of it, from `first` to `last`, the middle of
    the stretch does. A recording that is shorter than the stretch lies in it: the start is negative or 0.
    """
    if total <= count:
        return -round(u * (count - total))
    if not first and last >= total:
        return int(u * (total - count))
    return min(max(0, round(first + u * (last - first) - count / 2)), total - count)


def change(
    config: AudioViews, values: Float32[np.ndarray, "C S"], rate: int, stretch: Stretch
) -> Float32[np.ndarray, "C L"]:
    """Resample what was read at `rate` so that it plays at the stretch's speed; apply its equalizer and its gain."""
    result = resample(values, rate * stretch.speed, config.rate, config.samples)
    if stretch.curve:
        result = equalize(result, stretch.curve)
    return result * np.float32(10 ** (stretch.gain / 20)) if stretch.gain else result


def equalize(values: Float32[np.ndarray, "C L"], curve: tuple[float, ...]) -> Float32[np.ndarray, "C L"]:
    """Change the spectrum by decibels that are given at octaves below half the rate, the lowest first."""
    count = values.shape[1] // 2 + 1
    octave = np.log2(np.maximum(np.arange(count), 1) / count) + len(curve) - 1
    gain = 10 ** (np.interp(octave, np.arange(len(curve)), curve) / 20)
    return np.fft.irfft(np.fft.rfft(values) * gain, values.shape[1]).astype(np.float32)
