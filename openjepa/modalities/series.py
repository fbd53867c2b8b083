"""Signals over time as windows of samples.   B batch  C channels  L samples  N windows  E raw token width"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset, Tokenizer
from openjepa.core.types import FileList, Layout, Tokens
from openjepa.data.listing import list_files
from openjepa.data.series_files import SeriesArray, SeriesFiles
from openjepa.data.synthetic.sines import generate_sines
from openjepa.nn.stems import WindowEmbed


@dataclass(frozen=True)
class Series:
    """Time series: the files, the length of a training crop, and the windows it is cut into.

    Each channel of each crop is scaled to mean 0, variance 1, so the encoder sees shapes, not levels.
    """

    suffixes: ClassVar = frozenset({".npy", ".csv"})
    # .npy files that are signals: kind of value and number of axes
    arrays: ClassVar = (("f", 1), ("f", 2), ("f", 3))

    # folders of .npy files, or of .csv files if they hold no .npy files; sub-folders are labels. An array has shape
    # (signals, channels, samples), or (channels, samples) or (samples,) for one recording; a .csv file has a header
    # line, a column per channel and a row per sample, and may have a column of dates
    root: tuple[str, ...] = ()
    length: int = 256  # time steps of a crop, taken at a random start in training; a multiple of --data.window
    window: int = 8  # time steps per token; more: fewer tokens, faster, coarser
    channels: int = 1  # channels per signal, as in the files
    columns: tuple[str, ...] = ()  # columns of .csv files to read as channels; empty: all that hold numbers
    # time steps from one segment of a recording to the next; each segment of --data.length steps is a sample. 0:
    # --data.length, and for arrays of shape (signals, channels, samples) the first segment of each signal alone
    stride: int = 0

    def __post_init__(self):
        if self.window < 1 or self.length < 1 or self.length % self.window:
            better = max(1, self.length // max(1, self.window)) * max(1, self.window)
            raise UserError(
                f"length {self.length} is not a multiple of window {self.window}: try --data.length {better}"
            )
        if self.channels < 1:
            raise UserError(f"--data.channels must be >= 1, got {self.channels}: try --data.channels 1")
        if self.stride < 0:
            raise UserError(f"--data.stride must be >= 0 (0 = --data.length), got {self.stride}")
        if self.columns and len(self.columns) != self.channels:
            raise UserError(
                f"--data.columns names {len(self.columns)} columns, but --data.channels is {self.channels}: "
                f"type --data.channels {len(self.columns)}"
            )

    @property
    def layout(self) -> Layout:
        """Return a grid with one axis: the windows."""
        return Layout.grid(self.length // self.window)

    @property
    def token_dim(self) -> int:
        return self.channels * self.window

    def listing(self) -> FileList:
        """List the .npy files, or the .csv files if there are no others: beside arrays they hold labels."""
        files = list_files(self.root, frozenset({".npy", ".csv"}), include_archives=False)
        kinds = {path.lower().endswith(".csv") for path in files.paths}
        return list_files(self.root, frozenset({".npy"}), include_archives=False) if len(kinds) == 2 else files

    def dataset(self, source: FileList, cache: Path | None = None) -> SeriesFiles:
        """Open the recordings and list their segments. Raises UserError if they do not fit these settings."""
        return SeriesFiles(self, source.paths, source.fingerprint)

    def synthetic(self, size: int, seed: int) -> Dataset:
        """Generate sines of four frequencies; the label is the frequency."""
        sines = generate_sines(size, self.channels, self.length, seed)
        return SeriesArray(self.length, sines.signals.numpy(), sines.label, f"sines-{size}-{seed}")

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
