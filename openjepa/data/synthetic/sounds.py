"""Generate sounds: a tone that repeats in a rhythm, chirps that rise or fall, and noise.   S sounds  L samples"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.data.wav_files import wav_content

LOWEST, STEPS_PER_OCTAVE, PITCHES = 220.0, 4, 8  # Hz; the tones are LOWEST · 2^(k / STEPS_PER_OCTAVE)

RHYTHMS = (2.0, 3.0, 4.5, 7.0)  # beats per second

CHIRPS = 3  # at most

TASKS = {"pitch": PITCHES, "rhythm": len(RHYTHMS), "rising": 2, "sources": CHIRPS}

HARMONICS = 5

DETUNED, UNEVEN = 0.02, 0.04  # by which share pitches and rhythms vary within a class

LOW, SPAN = (300.0, 1000.0), (0.5, 1.5)  # lowest frequency of a chirp in Hz, and how far it goes in octaves

NOISE = (0.005, 0.05)  # standard deviation of the noise, of a tone of amplitude 1

LEVEL = (0.05, 0.8)  # of the loudest sample

CHUNK = 256  # sounds rendered at a time


class Sounds(NamedTuple):
    """Sounds and their labels."""

    sound: Float[Tensor, "S L"]
    pitch: Int[Tensor, "S"]  # of the tone: 8 classes, a quarter of an octave apart
    rhythm: Int[Tensor, "S"]  # in which the tone repeats: 4 classes
    rising: Int[Tensor, "S"]  # 1: all chirps of the sound rise; 0: all fall
    sources: Int[Tensor, "S"]  # number of chirps - 1


def render_sounds(count: int, rate: int, samples: int, seed: int, first: int = 0) -> Sounds:
    """Render sounds of `samples` values; sound i is a function of (seed, first + i) alone."""
    parts = []
    for start in range(first, first + count, CHUNK):
        rng = CounterRNG.of(seed, 0, np.arange(start, min(start + CHUNK, first + count)))
        parts.append(render_chunk(rng, rate, samples))
    return Sounds(*(torch.cat(part) for part in zip(*parts, strict=True)))


def render_chunk(rng: CounterRNG, rate: int, samples: int) -> Sounds:
    """Render the sounds of a generator."""
    pitch, rhythm, rising, sources = ((rng.uniform(name) * count).long() for name, count in TASKS.items())
    time = torch.arange(samples) / rate
    sound = draw_tone(rng, pitch, time) * draw_beats(rng, rhythm, time)
    for number in range(CHIRPS):
        sound += (sources >= number)[:, None] * draw_chirp(rng, number, rising, time)
    noise = log_between(NOISE, rng.uniform("noise level", 1))
    sound += noise * math.sqrt(12) * (rng.uniform("noise", samples) - 0.5)
    level = log_between(LEVEL, rng.uniform("level", 1))
    return Sounds(sound * level / sound.abs().amax(1, keepdim=True), pitch, rhythm, rising, sources)


def draw_tone(rng: CounterRNG, pitch: Int[Tensor, "S"], time: Float[Tensor, "L"]) -> Float[Tensor, "S L"]:
    """Return a sustained tone with harmonics of random strength."""
    detuned = 1 + DETUNED * (2 * rng.uniform("detuned") - 1)
    hz = LOWEST * 2 ** (pitch / STEPS_PER_OCTAVE) * detuned
    strength, phase = rng.uniform("strength", 1), rng.uniform("phase", HARMONICS)
    tone = torch.zeros(len(hz), len(time))
    for harmonic in range(HARMONICS):
        angle = 2 * math.pi * ((harmonic + 1) * hz[:, None] * time + phase[:, harmonic, None])
        tone += (0.3 + 0.5 * strength) ** harmonic * angle.sin()
    return tone / 2


def draw_beats(rng: CounterRNG, rhythm: Int[Tensor, "S"], time: Float[Tensor, "L"]) -> Float[Tensor, "S L"]:
    """Return an envelope that rises suddenly at each beat and decays until the next."""
    uneven = 1 + UNEVEN * (2 * rng.uniform("uneven", 1) - 1)
    beats = torch.tensor(RHYTHMS)[rhythm][:, None] * uneven
    since = (beats * time + rng.uniform("first beat", 1)) % 1 / beats  # seconds since the last beat
    decay = 0.04 + 0.08 * rng.uniform("decay", 1)
    return (since / 0.004).clamp(max=1) * (-since / decay).exp()


def draw_chirp(
    rng: CounterRNG, number: int, rising: Int[Tensor, "S"], time: Float[Tensor, "L"]
) -> Float[Tensor, "S L"]:
    """Return a sine whose pitch rises or falls between random frequencies, in a random part of the time."""
    draw = rng.uniform(f"chirp {number}", 5, 1)
    low = log_between(LOW, draw[:, 0])
    high = low * 2 ** (SPAN[0] + (SPAN[1] - SPAN[0]) * draw[:, 1])
    start, end = torch.where(rising[:, None] > 0, low, high), torch.where(rising[:, None] > 0, high, low)
    length = time[-1] * (0.4 + 0.4 * draw[:, 2])
    since = time - draw[:, 3] * (time[-1] - length)
    inside = ((since >= 0) & (since <= length)).float()
    rise = (end / start).log() / length
    angle = 2 * math.pi * start * ((rise * since).exp() - 1) / rise
    edges = (torch.minimum(since, length - since) / 0.02).clamp(0, 1)
    return inside * edges * angle.sin() * (0.2 + 0.4 * draw[:, 4])


def log_between(limits: tuple[float, float], u: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Return values between two limits, evenly spread on a logarithmic scale."""
    low, high = limits
    return low * (high / low) ** u


def write_sounds(folder: Path, count: int, rate: int, samples: int, seed: int, first: int = 0) -> None:
    """Write sounds as WAV files of 16 bits, and their labels as labels.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    sounds = render_sounds(count, rate, samples, seed, first)
    rows = [",".join(["file", *TASKS])]
    for number, values in enumerate(sounds.sound, first):
        name = f"{number:06d}.wav"
        (folder / name).write_bytes(wav_content(values.numpy(), rate))
        rows.append(",".join([name, *(str(int(getattr(sounds, task)[number - first])) for task in TASKS)]))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
