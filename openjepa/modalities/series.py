"""Signals over time as windows of samples.   B batch  C channels  L samples  N windows  E raw token width"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset, Tokenizer
from openjepa.core.rng import CounterRNG
from openjepa.core.types import FileList, Layout, Tokens
from openjepa.data.listing import list_files
from openjepa.data.series_files import SeriesArray
from openjepa.nn.stems import WindowEmbed


@dataclass(frozen=True)
class Series:
    """Time series: the file, the length of a training crop, and the windows it is cut into."""

    suffixes: ClassVar = frozenset({".npy"})
    arrays: ClassVar = (("f", 3),)  # .npy files that are signals: kind of value and number of axes

    root: tuple[str, ...] = ()  # one .npy file of shape (signals, channels, samples)
    length: int = 256  # time steps of a crop, taken at a random start in training; a multiple of --data.window
    window: int = 8  # time steps per token; more: fewer tokens, faster, coarser
    channels: int = 1  # channels per signal, as in the file

    def __post_init__(self):
        if self.window < 1 or self.length % self.window:
            better = max(1, self.length // max(1, self.window)) * self.window
            raise UserError(
                f"length {self.length} is not a multiple of window {self.window}: try --data.length {better}"
            )

    @property
    def layout(self) -> Layout:
        """Return a grid with one axis: the windows."""
        return Layout.grid(self.length // self.window)

    @property
    def token_dim(self) -> int:
        return self.channels * self.window

    def listing(self) -> FileList:
        return list_files(self.root, frozenset({".npy"}), include_archives=False)

    def dataset(self, source: FileList, cache: Path | None = None) -> Dataset:
        """Memory-map the signals of a .npy file. Raises UserError if it is not one array of such signals."""
        if len(source.paths) != 1:
            raise UserError(
                f"--data.root must hold one .npy file of shape (signals, {self.channels}, samples), "
                f"got {len(source.paths)}"
            )
        signals = np.load(source.paths[0], mmap_mode="r", allow_pickle=False)
        if signals.ndim != 3 or signals.shape[1] != self.channels or signals.shape[2] < self.length:
            expected = f"(signals, {self.channels}, {self.length} or more)"
            raise UserError(f"{source.paths[0]} must have shape {expected}, got {signals.shape}")
        return SeriesArray(self.length, signals, torch.full((len(signals),), -1), source.fingerprint)

    def synthetic(self, size: int, seed: int) -> Dataset:
        """Generate sines of four frequencies (the label) with random phase and a third harmonic of random strength."""
        rng = CounterRNG.of(seed, 0, np.arange(size))
        label = (rng.uniform("label") * 4).long()
        phase, strength = rng.uniform("shape", self.channels, 2, 1).mul(2 * math.pi).unbind(2)
        angle = torch.arange(2 * self.length) * (2 * math.pi * (label + 2) / self.length)[:, None, None] + phase
        signals = angle.sin() + 0.1 * strength * (3 * angle).sin()
        return SeriesArray(self.length, signals.numpy(), label, f"sines-{size}-{seed}")

    def tokens(self, view: Float[Tensor, "B C L"]) -> Tokens:
        """Normalize each signal to mean 0, variance 1 and cut it into windows, rows of C·window values.

        A token's position is the index of its window.
        """
        batch, channels, length = view.shape
        x = (view - view.mean(-1, keepdim=True)) / view.std(-1, keepdim=True).clamp(min=1e-6)
        x = x.view(batch, channels, length // self.window, self.window).transpose(1, 2).flatten(2)
        pos = torch.arange(length // self.window, device=view.device, dtype=torch.float32)[:, None]
        return Tokens(x, pos.expand(batch, -1, -1))

    def tokenizer(self, dim: int) -> Tokenizer:
        return WindowEmbed(self.token_dim, dim)

    def tokenizer_flops(self, dim: int) -> int:
        return 2 * self.token_dim * dim
