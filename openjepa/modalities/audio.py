"""Sound as grids of patches of a log-mel spectrogram.

B batch  C channels  L samples of a stretch  M mel bands  T time frames  N tokens  E raw token width
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.export import Dim

from openjepa.core.capabilities import Control
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset, Tokenizer
from openjepa.core.types import FileList, Layout, Tokens
from openjepa.data.audio_baselines import baselines_of
from openjepa.data.audio_controls import reverse_time, shuffle_pieces
from openjepa.data.audio_doctor import AudioFacts, examine_sounds
from openjepa.data.audio_files import AudioArray, AudioFiles
from openjepa.data.audio_formats import AUDIO_SUFFIXES
from openjepa.data.audio_inputs import AudioInput, evaluation_stretch, iter_sounds
from openjepa.data.audio_listing import list_sounds
from openjepa.data.audio_survey import suggest_lengths
from openjepa.data.file_labels import FileLabels
from openjepa.data.spectrogram import MelScale, log_mel
from openjepa.data.spectrogram_pictures import draw_spectrogram
from openjepa.data.wav_files import wav_content
from openjepa.nn.pooling import pool_rows
from openjepa.nn.positions import grid_positions
from openjepa.nn.stems import PatchEmbed

MEASURED_SAMPLES = 1024  # whose spectrograms are measured


@dataclass(frozen=True)
class Audio:
    """Sound as log-mel spectrograms: the recordings, the stretch that is a view, the mel bands and the patches.

    A stretch starts anywhere in a recording; the rows of its spectrogram go from high to low, as drawn.
    """

    suffixes: ClassVar = AUDIO_SUFFIXES
    arrays: ClassVar = ()
    archives: ClassVar = False  # a folder of archives holds images, unless --modality audio says otherwise
    plural: ClassVar[str] = "recordings"  # what messages call the samples

    # folders of wav, flac, ogg or mp3 files, or of videos, whose sound is read; .tar or .parquet files, or a .txt file
    # of paths
    root: tuple[str, ...] = ()
    rate: int = 16000  # samples per second; recordings of other rates are resampled
    channels: int = 1  # 1: the mean of all channels
    frames: int = 96  # time frames of a stretch, --data.hop seconds each; a multiple of --data.patch
    bands: int = 64  # mel bands of a spectrogram; a multiple of --data.patch
    patch: int = 8  # side of a patch: bands and frames
    window: float = 0.025  # seconds of sound in a frame
    hop: float = 0.01  # seconds from one frame to the next
    low: float = 50.0  # Hz, where the first band starts
    high: float = 0.0  # Hz, where the last band ends; 0: half of --data.rate
    every: float = 0.0  # seconds from one stretch of a file to the next, each a sample; 0: one per file
    # what fills a stretch of a shorter recording: the recording again, from a random start on, or silence
    short: Literal["repeat", "silence"] = "repeat"
    eval_clips: int = 1  # stretches of a file, evenly spaced, whose features probes and jepa embed average
    gain: float = 0.0  # decibels by which the level of training stretches varies, up and down; A-JEPA: 6
    equalizer: float = 0.0  # decibels by which random filters change the spectrum of training stretches, up and down
    speed: tuple[float, float] = (1.0, 1.0)  # range of playback speeds of training stretches, which change the pitch
    floor: float = 80.0  # decibels below the loudest value of a stretch, to which quieter values are raised
    # how spectrograms are normalized. data: by the mean and standard deviation of the data (papers); stretch: by those
    # of each stretch, so that its level makes no difference
    normalize: Literal["data", "stretch"] = "data"
    # how tokens become features for probes and search. row-mean: the mean of each row of patches over time, one row
    # after the other (MSM-MAE); row-max: the maximum; mean: over all patches, which is shorter and knows no pitch
    pooling: Literal["row-mean", "row-max", "mean"] = "row-mean"
    mean: tuple[float, ...] = ()  # of the spectrogram of each channel in decibels; empty: measured on the data
    std: tuple[float, ...] = ()  # standard deviation, likewise; empty: measured on the data
    input_name: ClassVar[str] = "input_values"  # of an exported program
    input_text: ClassVar[str] = "normalized log-mel spectrograms (batch, channels, bands from high to low, frames)"

    def __post_init__(self):
        for name in ("rate", "channels", "patch", "eval_clips"):
            if getattr(self, name) < 1:
                raise UserError(f"--data.{name.replace('_', '-')} must be >= 1, got {getattr(self, name)}")
        for name in ("bands", "frames"):
            value = getattr(self, name)
            if value < 1 or value % self.patch:
                better = max(1, round(value / self.patch)) * self.patch
                raise UserError(f"{value} {name} are not a multiple of patch {self.patch}: try --data.{name} {better}")
        for name in ("every", "gain", "equalizer", "low", "high"):
            if getattr(self, name) < 0:
                raise UserError(f"--data.{name} must be >= 0, got {getattr(self, name):g}")
        if not 1 <= self.scale.hop <= self.scale.window:
            raise UserError(
                f"--data.hop {self.hop:g} must be at least a sample and at most --data.window {self.window:g} seconds"
            )
        if not self.low < self.scale.high <= self.rate / 2:
            raise UserError(
                f"mel bands from {self.low:g} to {self.scale.high:g} Hz do not fit a rate of {self.rate}: try "
                "--data.low 50 --data.high 0"
            )
        if not 0 < self.speed[0] <= self.speed[1]:
            raise UserError(f"speed {self.speed} is not a range above 0: try --data.speed 0.9 1.1")
        if self.floor <= 0:
            raise UserError(f"--data.floor must be > 0, got {self.floor:g}: try --data.floor 80")

    @property
    def scale(self) -> MelScale:
        """Return how spectrograms are computed."""
        window, hop = round(self.window * self.rate), round(self.hop * self.rate)
        return MelScale(self.rate, window, hop, self.bands, self.low, self.high or self.rate / 2)

    @property
    def samples(self) -> int:
        """Return the length of a stretch in samples."""
        return self.frames * self.scale.hop

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows (bands, from high to low) and columns (time) of patches."""
        return self.bands // self.patch, self.frames // self.patch

    @property
    def layout(self) -> Layout:
        return Layout.grid(*self.grid)

    @property
    def token_dim(self) -> int:
        return self.channels * self.patch**2

    def listing(self) -> FileList:
        return list_sounds(self.root)

    def dataset(self, source: FileList, cache: Path | None = None) -> AudioFiles:
        """Open the recordings of a list of files; with `every`, the lengths of all files are read."""
        fingerprint = source.fingerprint if cache else source.known_fingerprint
        return AudioFiles(self, source.paths, fingerprint, FileLabels.of(source))

    def synthetic(self, size: int, seed: int) -> Dataset:
        """Generate tones in rhythms, with chirps; the label is the pitch of the tone."""
        from openjepa.data.synthetic.sounds import PITCHES, render_sounds

        sounds = render_sounds(size, self.rate, self.samples, seed)
        mono = sounds.sound[:, None].expand(-1, self.channels, -1).contiguous()
        return AudioArray(self, mono, sounds.pitch, f"sounds-{size}-{seed}", tuple(map(str, range(PITCHES))))

    def tokens(self, view: Float[Tensor, "B C L"] | Float[Tensor, "B C M T"]) -> Tokens:
        """Cut the normalized log-mel spectrograms of stretches, or what `prepare` made of them, into patches.

        Tokens are rows of C·p·p values; positions are (x, y) = (column, row): time, and pitch from high to low.
        """
        return self.patchify(view if view.ndim == 4 else self.spectrogram(view))

    def spectrogram(self, view: Float[Tensor, "B C L"]) -> Float[Tensor, "B C M T"]:
        """Return normalized log-mel spectrograms, their rows from high to low."""
        return self.standardize(self.decibels(view))

    prepare = spectrogram  # once a step: targets and predictions both start from it

    def decibels(self, view: Float[Tensor, "B C L"]) -> Float[Tensor, "B C M T"]:
        """Return log-mel spectrograms in decibels, raised to the floor, their rows from high to low."""
        with torch.autocast(view.device.type, enabled=False):
            spectrogram = log_mel(view, self.scale).flip(2)
        return torch.maximum(spectrogram, spectrogram.amax((1, 2, 3), keepdim=True) - self.floor)

    def standardize(self, spectrogram: Float[Tensor, "B C M T"]) -> Float[Tensor, "B C M T"]:
        """Scale spectrograms in decibels by the statistics of the data, or of each stretch."""
        if self.normalize == "stretch":
            mean, std = (each(spectrogram, (1, 2, 3), keepdim=True) for each in (torch.mean, torch.std))
            return (spectrogram - mean) / std.clamp(min=1e-3)
        mean, std = (torch.tensor(each, device=spectrogram.device).view(-1, 1, 1) for each in (self.mean, self.std))
        return (spectrogram - mean) / std

    def patchify(self, spectrogram: Float[Tensor, "B C M T"]) -> Tokens:
        """Cut normalized spectrograms into patches, as `tokens` does; they may be longer than the trained stretch."""
        batch, channels, bands, frames = spectrogram.shape
        if bands % self.patch or frames % self.patch:
            raise UserError(f"a spectrogram of {bands}×{frames} values does not divide into patches of {self.patch}")
        rows, columns = bands // self.patch, frames // self.patch
        x = spectrogram.reshape(batch, channels, rows, self.patch, columns, self.patch)
        x = x.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
        pos = grid_positions(rows, columns).to(spectrogram.device)
        return Tokens(x, pos.expand(batch, -1, -1))

    def unpatchify(self, x: Float[Tensor, "B N E"], grid: tuple[int, int] | None = None) -> Float[Tensor, "B C M T"]:
        """Assemble normalized spectrograms from patches; `picture` draws them as it does stretches."""
        rows, columns = grid or self.grid
        x = x.float().view(len(x), rows, columns, self.channels, self.patch, self.patch)
        return x.permute(0, 3, 1, 4, 2, 5).reshape(len(x), self.channels, rows * self.patch, columns * self.patch)

    def tokenizer(self, dim: int) -> Tokenizer:
        return PatchEmbed(self.channels, self.patch, dim)

    def tokenizer_flops(self, dim: int) -> int:
        return 2 * self.token_dim * dim

    def pool(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B F"]:
        """Pool tokens to the features of a stretch, as `pooling` says.

        Source: Niizumi et al., Masked Spectrogram Modeling (MSM-MAE), arXiv 2204.12260, for the mean of each row.
        """
        if self.pooling == "mean":
            return x.mean(1)
        return pool_rows(x, self.grid[0], "max" if self.pooling == "row-max" else "mean")

    def pooled_dim(self, dim: int) -> int:
        """Return the width of a stretch's features."""
        return dim if self.pooling == "mean" else dim * self.grid[0]

    def read(self, source: AudioInput, size: Any = None) -> Float[Tensor, "C L"]:
        """Return the stretch in the middle of a recording, or the one that FILE#t=SECONDS names; `size`: its frames.

        Takes a path, or an array or tensor (channels, samples) at the rate of these settings.
        """
        return evaluation_stretch(source, self if size is None else dataclasses.replace(self, frames=int(size)))

    def iterate(self, sources: Any) -> Iterator[AudioInput]:
        """Yield single recordings, also from an array or tensor (B, C, L)."""
        return iter_sounds(sources)

    def picture(self, view: Float[Tensor, "C *L"]) -> UInt8[np.ndarray, "M T 3"]:
        """Draw the spectrogram of the first channel of a stretch, or a normalized spectrogram (C, M, T)."""
        spectrogram = self.spectrogram(view[None])[0] if view.ndim == 2 else view
        return draw_spectrogram(spectrogram[0].cpu().numpy())

    def paint(self, view: Float[Tensor, "C *L"], colors: Float[Tensor, "N 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Return a picture with one pixel per patch."""
        rows = self.bands // self.patch
        return (colors.view(rows, -1, 3) * 255).round().to(torch.uint8).cpu().numpy()

    def thumbnail(self, source: str, side: int) -> UInt8[np.ndarray, "H W 3"]:
        """Return the spectrogram of the evaluation stretch; it has as many pixels as values."""
        return self.picture(self.read(source))

    def sound(self, source: AudioInput) -> bytes:
        """Return the evaluation stretch as a WAV file of 16 bits; of a shorter recording all of it."""
        view = dataclasses.replace(self, short="silence").read(source)
        return wav_content(view.mean(0).numpy(), self.rate)

    @property
    def statistics(self) -> dict[str, tuple[float, ...]]:
        return {"mean": self.mean, "std": self.std}

    def measure(self, data: Dataset) -> Audio:
        """Return the modality with the mean and the standard deviation of the spectrograms of each channel."""
        if self.mean:
            return self
        index, parts, first = torch.linspace(0, len(data) - 1, min(MEASURED_SAMPLES, len(data))).long(), [], None
        for rows in index.split(32):
            samples = data.read(rows, None)
            first = first or next(iter(samples.skipped), None)
            decoded = samples.label >= 0 if samples.skipped else slice(None)  # undecodable samples have label -1
            parts.append(self.decibels(samples.views[0][decoded]).double())
        values = torch.cat(parts)
        if not len(values):
            reason = f", the first is {first.path} ({first.reason})" if first else ""
            raise UserError(
                f"none of {len(index)} sampled recordings can be decoded{reason}: run jepa doctor on the folder"
            )
        mean, std = values.mean((0, 2, 3)), values.std((0, 2, 3)).clamp(min=1e-3)
        mean, std = (tuple(round(value, 4) for value in each.tolist()) for each in (mean, std))
        return dataclasses.replace(self, mean=mean, std=std)

    def describe(self) -> str:
        seconds = self.samples / self.rate
        return f"{seconds:g} s at {self.rate:,} Hz, {self.bands} mel bands × {self.frames} frames, patch {self.patch}"

    def suggest(self) -> tuple[Audio, tuple[str, ...]]:
        """Choose the rate and the length of a stretch by the recordings."""
        return suggest_lengths(self)

    def inspect(self, paths: list[str], workers: int) -> Iterator[AudioFacts]:
        """Yield rate, length, level, hash and problems of every recording."""
        return examine_sounds(paths, workers)

    def baselines(self) -> dict[str, Callable[[Float[Tensor, "B C L"]], Float[Tensor, "B F"]]]:
        """Return the mean spectrum, the whole spectrogram at low resolution, and statistics of MFCCs."""
        return baselines_of(self)

    def controls(self) -> dict[str, Control]:
        """Return stretches without the order of their pieces, and backwards."""
        return {"shuffled pieces": Control(shuffle_pieces), "reversed time": Control(reverse_time, trained=False)}

    def example_input(self, batch: int, more: int = 0) -> Float[Tensor, "B C M T"]:
        """Return spectrograms of noise, of the trained length or `more` patches longer."""
        generator = torch.Generator().manual_seed(batch)
        return torch.randn(batch, self.channels, self.bands, self.frames + more * self.patch, generator=generator)

    def input_tokens(self, inputs: Float[Tensor, "B C M T"]) -> Tokens:
        """Return the patches of normalized spectrograms."""
        return self.patchify(inputs)

    def free_axes(self) -> dict[int, Any]:
        """Return time, in multiples of the patch."""
        return {3: self.patch * Dim("columns", min=2, max=4096)}
