"""Sines of four frequencies, the simplest labeled signals.   S signals  C channels  L samples"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.rng import CounterRNG

FREQUENCIES = (2, 3, 4, 5)  # cycles per crop; the label is an index into them


class Sines(NamedTuple):
    """Signals twice as long as a crop, and the index of each one's frequency."""

    signals: Float[Tensor, "S C L"]
    label: Int[Tensor, "S"]


def generate_sines(size: int, channels: int, length: int, seed: int, first: int = 0, noise: float = 0.0) -> Sines:
    """Generate sines with random phase and a third harmonic of random strength, for crops of `length` samples.

    Signal n is a function of (seed, n); `first` is the number of the first one. `noise` is the standard deviation of
    uniform noise that is added; that of the sines is about 0.7.
    """
    rng = CounterRNG.of(seed, 0, np.arange(first, first + size))
    label = (rng.uniform("label") * len(FREQUENCIES)).long()
    phase, strength = rng.uniform("shape", channels, 2, 1).mul(2 * math.pi).unbind(2)
    cycles = label + FREQUENCIES[0]
    angle = torch.arange(2 * length) * (2 * math.pi * cycles / length)[:, None, None] + phase
    signals = angle.sin() + 0.1 * strength * (3 * angle).sin()
    if noise:
        signals += noise * math.sqrt(12) * (rng.uniform("noise", channels, 2 * length) - 0.5)
    return Sines(signals, label)


def write_sines(
    folder: Path, size: int, channels: int, length: int, seed: int, first: int = 0, noise: float = 0.0
) -> None:
    """Write sines as .npy files of shape (channels, samples) into a folder per frequency, like a user's recordings."""
    signals, label = generate_sines(size, channels, length, seed, first, noise)
    for number, (signal, frequency) in enumerate(zip(signals.numpy(), label.tolist(), strict=True), first):
        part = folder / f"{FREQUENCIES[frequency]}-cycles"
        part.mkdir(parents=True, exist_ok=True)
        np.save(part / f"{number:06d}.npy", signal)
