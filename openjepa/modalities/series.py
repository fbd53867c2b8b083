"""Signals over time as windows of samples.   B batch  C channels  L samples  N windows  E raw token width"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.export import Dim

from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset, Tokenizer
from openjepa.core.types import FileList, Layout, Tokens
from openjepa.data.file_labels import FileLabels
from openjepa.data.listing import list_files
from openjepa.data.series_files import SeriesArray, SeriesFiles
from openjepa.data.series_plot import SIZE, draw_signal
from openjepa.data.series_reading import read_window
from openjepa.data.series_survey import choose_lengths, survey_files
from openjepa.data.synthetic.sines import generate_sines
from openjepa.nn.stems import WindowEmbed

SeriesInput = np.ndarray | Tensor | str | Path


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
    input_name: ClassVar[str] = "signals"  # of an exported program
    input_text: ClassVar[str] = "signals (batch, channels, time steps), as they are"

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
        return SeriesFiles(self, source.paths, source.known_fingerprint, FileLabels.of(source))

    def synthetic(self, size: int, seed: int) -> Dataset:
        """Generate sines of four frequencies; the label is the frequency."""
        sines = generate_sines(size, self.channels, self.length, seed)
        return SeriesArray(self.length, sines.signals.numpy(), sines.label, f"sines-{size}-{seed}")

    def tokens(self, view: Float[Tensor, "B C L"]) -> Tokens:
        """Normalize each signal to mean 0, variance 1 and cut it into windows, rows of C·window values.

        A token's position is the index of its window.
        """
        batch, channels, length = view.shape
        x = normalize_signals(view).view(batch, channels, length // self.window, self.window)
        pos = torch.arange(length // self.window, device=view.device, dtype=torch.float32)[:, None]
        return Tokens(x.transpose(1, 2).flatten(2), pos.expand(batch, -1, -1))

    def tokenizer(self, dim: int) -> Tokenizer:
        return WindowEmbed(self.token_dim, dim)

    def tokenizer_flops(self, dim: int) -> int:
        return 2 * self.token_dim * dim

    def read(self, source: SeriesInput, size: int | None = None) -> Float[Tensor, "C L"]:
        """Return the first `length` samples of a signal, or the window that FILE#NUMBER names; `size`: another length.

        Takes a path, or an array or tensor (channels, samples).
        """
        if size is not None:
            return dataclasses.replace(self, length=size).read(source)
        if isinstance(source, str | Path):
            return read_window(dataclasses.replace(self, root=()), str(source))
        if not isinstance(source, np.ndarray | Tensor):
            raise UserError(f"a {type(source).__name__} is not a signal: give a path or an array (channels, samples)")
        signal = torch.as_tensor(source)
        if signal.ndim != 2 or len(signal) != self.channels or signal.shape[1] < self.length:
            expected = f"({self.channels}, {self.length} or more)"
            raise UserError(f"a signal must have shape {expected}, got {tuple(signal.shape)}")
        return signal[:, : self.length].float()

    def iterate(self, sources: Any) -> Iterator[SeriesInput]:
        """Yield single signals, also from an array or tensor (B, C, L)."""
        if isinstance(sources, str | Path) or (isinstance(sources, np.ndarray | Tensor) and sources.ndim == 2):
            yield sources
        elif isinstance(sources, Iterable) and not isinstance(sources, bytes):
            yield from sources
        else:
            raise UserError(f"a {type(sources).__name__} is not a signal: give a path or an array (channels, samples)")

    def picture(self, view: Float[Tensor, "C L"]) -> UInt8[np.ndarray, "H W 3"]:
        """Draw a line for each channel."""
        return draw_signal(view.cpu().numpy())

    def paint(self, view: Float[Tensor, "C L"], colors: Float[Tensor, "N 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """Draw a black line for each channel, on the colors of its windows."""
        return draw_signal(view.cpu().numpy(), colors.cpu().numpy(), SIZE, "black")

    def describe(self) -> str:
        return f"{self.length} time steps in windows of {self.window}"

    def suggest(self) -> tuple[Series, tuple[str, ...]]:
        """Take the channels from the files, and the lengths of crops and tokens that fit them."""
        survey = survey_files(self.listing().paths, self.columns)
        length, window = choose_lengths(survey, self.length, self.window)
        crops = f"crops of {length} time steps, tokens of {window}"
        if window == survey.rows_per_day:
            crops += ", a day"
        data = dataclasses.replace(self, channels=survey.channels, length=length, window=window)
        return data, (f"{survey.describe()}: {crops}",)

    def baselines(self) -> dict[str, Callable[[Float[Tensor, "B C L"]], Float[Tensor, "B F"]]]:
        """Return normalized samples, and the magnitudes of their Fourier transform, which do not depend on the phase.

        They read what the encoder reads: signals of mean 0 and variance 1.
        """
        return {
            "raw windows": lambda view: normalize_signals(view).flatten(1),
            "Fourier magnitudes": lambda view: torch.fft.rfft(normalize_signals(view)).abs().flatten(1),
        }

    def example_input(self, batch: int, more: int = 0) -> Float[Tensor, "B C L"]:
        """Return noise of the trained length, or `more` windows longer."""
        generator = torch.Generator().manual_seed(batch)
        return torch.randn(batch, self.channels, self.length + more * self.window, generator=generator)

    def input_tokens(self, inputs: Float[Tensor, "B C L"]) -> Tokens:
        """Return the windows of signals; the program normalizes them."""
        return self.tokens(inputs)

    def free_axes(self) -> dict[int, Any]:
        """Return time, in multiples of the window."""
        return {2: self.window * Dim("windows", min=2, max=65536)}


def normalize_signals(view: Float[Tensor, "B C L"]) -> Float[Tensor, "B C L"]:
    """Scale each channel of each signal to mean 0 and variance 1."""
    return (view - view.mean(-1, keepdim=True)) / view.std(-1, keepdim=True).clamp(min=1e-6)
