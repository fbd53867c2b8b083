"""Generate the sound of a machine with strokes, hum and fan, without and with faults.   S sounds  L samples"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.data.synthetic.sounds import log_between
from openjepa.data.wav_files import wav_content

FAULTS = ("none", "skipping", "rattling", "uneven", "squealing", "loose")

SPEED = (6.0, 9.0)  # strokes per second

RESONANCE, LOOSENED = (1400.0, 1600.0), 0.85  # Hz of a stroke, and by which factor a loose part lowers it

HUM, HARMONICS = 100.0, 4  # Hz

NOISE = (0.02, 0.08)  # standard deviation of the fan's noise, of a stroke of amplitude 1

LEVEL = (0.05, 0.8)  # of the loudest sample

MAX_STROKES = 64

CHUNK = 128  # sounds rendered at a time


class Machines(NamedTuple):
    """Sounds of a machine and the number of its fault; 0: none."""

    sound: Float[Tensor, "S L"]
    fault: Int[Tensor, "S"]


def render_machines(fault: Int[Tensor, "S"], rate: int, samples: int, seed: int, first: int = 0) -> Machines:
    """Render one sound with each fault; sound i is a function of (seed, first + i, its fault) alone."""
    parts = [
        render_chunk(CounterRNG.of(seed, 0, np.arange(first + start, first + start + len(some))), some, rate, samples)
        for start, some in zip(range(0, len(fault), CHUNK), fault.split(CHUNK), strict=True)
    ]
    return Machines(torch.cat(parts), fault)


def render_chunk(rng: CounterRNG, fault: Int[Tensor, "S"], rate: int, samples: int) -> Float[Tensor, "S L"]:
    """Render the sounds of a generator."""
    time = torch.arange(samples) / rate
    sound = (
        draw_strokes(rng, fault, time)
        + draw_hum(rng, time)
        + draw_squeal(rng, fault == FAULTS.index("squealing"), time)
    )
    sound += log_between(NOISE, rng.uniform("noise level", 1)) * math.sqrt(12) * (rng.uniform("noise", samples) - 0.5)
    return sound * log_between(LEVEL, rng.uniform("level", 1)) / sound.abs().amax(1, keepdim=True)


def draw_strokes(rng: CounterRNG, fault: Int[Tensor, "S"], time: Float[Tensor, "L"]) -> Float[Tensor, "S L"]:
    """Return a decaying resonance at each stroke.

    Faults: every third stroke is faint (skipping), a faint stroke follows each (rattling), strokes come at irregular
    times (uneven), the resonance is lower (loose).
    """
    is_fault = {name: (fault == number)[:, None] for number, name in enumerate(FAULTS)}
    speed = log_between(SPEED, rng.uniform("speed", 1))
    number = torch.arange(MAX_STROKES)
    jitter = torch.where(is_fault["uneven"], 0.35, 0.03) * (2 * rng.uniform("jitter", MAX_STROKES) - 1)
    start = (number - 1 + rng.uniform("first stroke", 1) + jitter) / speed
    strength = 0.8 + 0.2 * rng.uniform("strength", MAX_STROKES)
    strength = torch.where(is_fault["skipping"] & (number % 3 == 0), 0.15, strength)
    hz = (RESONANCE[0] + (RESONANCE[1] - RESONANCE[0]) * rng.uniform("resonance", 1)) * torch.where(
        is_fault["loose"], LOOSENED, 1.0
    )
    echo = torch.where(is_fault["rattling"], 0.4, 0.0)
    sound = torch.zeros(len(fault), len(time))
    for stroke in range(MAX_STROKES):
        for delay, factor in ((0.0, torch.ones_like(echo)), (0.3, echo)):
            since = time - start[:, stroke, None] - delay / speed
            ring = (2 * math.pi * hz * since).sin() * (-since.clamp(min=0) / 0.02).exp()
            sound += factor * strength[:, stroke, None] * torch.where(since >= 0, ring, 0.0)
    return sound


def draw_hum(rng: CounterRNG, time: Float[Tensor, "L"]) -> Float[Tensor, "S L"]:
    """Return harmonics of the mains, of varied strength."""
    strength, phase = rng.uniform("hum", HARMONICS, 1), rng.uniform("phase", HARMONICS, 1)
    harmonic = torch.arange(1, HARMONICS + 1)[:, None]
    waves = (2 * math.pi * (HUM * harmonic * time + phase)).sin()
    return 0.2 * (strength / harmonic * waves).sum(1)


def draw_squeal(rng: CounterRNG, squealing: Tensor, time: Float[Tensor, "L"]) -> Float[Tensor, "S L"]:
    """Return a faint, short tone of friction; silence for machines that do not squeal."""
    draw = rng.uniform("squeal", 3, 1)
    start, hz = draw[:, 0] * time[-1] * 0.8, 2500 + 700 * draw[:, 1]
    inside = ((time >= start) & (time <= start + 0.15 * time[-1])).float()
    return squealing[:, None] * (0.05 + 0.05 * draw[:, 2]) * inside * (2 * math.pi * hz * time).sin()


def write_machines(folder: Path, fault: Int[Tensor, "S"], rate: int, samples: int, seed: int, first: int = 0) -> None:
    """Write sounds as WAV files of 16 bits, in a folder for each fault."""
    sounds = render_machines(fault, rate, samples, seed, first)
    for number, (values, kind) in enumerate(zip(sounds.sound, fault.tolist(), strict=True), first):
        file = folder / FAULTS[kind] / f"{number:06d}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(wav_content(values.numpy(), rate))
