"""Log-mel spectrograms of sound.   B batch  C channels  S samples  F frequencies  M mel bands  T time frames"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LINEAR_STEP = 200 / 3  # Hz per mel below LOG_START: Slaney's scale

LOG_START = 1000.0  # Hz above which a mel is a constant ratio of frequencies

LOG_STEP = torch.tensor(6.4, dtype=torch.float64).log().item() / 27  # ln of that ratio

QUIETEST = 1e-10  # power of silence: -100 dB


class MelScale(NamedTuple):
    """How a spectrogram is computed: the rate of the sound, the window of a frame, and the mel bands."""

    rate: int  # samples per second
    window: int  # samples of a frame
    hop: int  # samples from one frame to the next
    bands: int
    low: float  # Hz, where the first band starts
    high: float  # Hz, where the last band ends

    @property
    def fft(self) -> int:
        """Return the points of the Fourier transform: the next power of 2, so that low bands have a frequency each."""
        return 1 << (self.window - 1).bit_length()


def hz_to_mel(hz: Float[Tensor, "*K"]) -> Float[Tensor, "*K"]:
    """Convert frequencies to mels on Slaney's scale: linear below 1 kHz, logarithmic above."""
    log = LOG_START / LINEAR_STEP + (hz.clamp(min=LOG_START) / LOG_START).log() / LOG_STEP
    return torch.where(hz < LOG_START, hz / LINEAR_STEP, log)


def mel_to_hz(mel: Float[Tensor, "*K"]) -> Float[Tensor, "*K"]:
    """Invert `hz_to_mel`."""
    start = LOG_START / LINEAR_STEP
    return torch.where(mel < start, mel * LINEAR_STEP, LOG_START * ((mel - start) * LOG_STEP).exp())


@lru_cache(maxsize=16)
def mel_filterbank(scale: MelScale) -> Float[Tensor, "M F"]:
    """Return triangular filters of equal area, whose centers are evenly spaced in mels; the first band is the lowest.

    Source: Slaney, Auditory Toolbox, 1998; the values are those of librosa.filters.mel.
    """
    low, high = hz_to_mel(torch.tensor([scale.low, scale.high], dtype=torch.float64)).tolist()
    centers = mel_to_hz(torch.linspace(low, high, scale.bands + 2, dtype=torch.float64))
    left, middle, right = centers[:-2, None], centers[1:-1, None], centers[2:, None]
    hz = torch.arange(scale.fft // 2 + 1, dtype=torch.float64) * (scale.rate / scale.fft)
    rising, falling = (hz - left) / (middle - left), (right - hz) / (right - middle)
    return (torch.minimum(rising, falling).clamp(min=0) * 2 / (right - left)).float()


def log_mel(sound: Float[Tensor, "B C S"], scale: MelScale) -> Float[Tensor, "B C M T"]:
    """Return the power of each mel band in each frame, in decibels; a full-scale value is 1, silence is -100 dB.

    Frames are centered in their hop, and the sound is mirrored at its ends: S / hop frames.
    """
    margin = scale.fft - scale.hop
    padded = F.pad(sound.float(), (margin // 2, margin - margin // 2), "reflect")
    window = F.pad(
        hann(scale.window, sound.device), ((scale.fft - scale.window) // 2, (scale.fft - scale.window + 1) // 2)
    )
    frames = padded.unfold(-1, scale.fft, scale.hop)[..., : sound.shape[-1] // scale.hop, :]
    power = torch.fft.rfft(frames * window).abs().square()
    mel = power @ mel_filterbank(scale).to(sound.device).T
    return 10 * mel.clamp(min=QUIETEST).log10().transpose(-1, -2)


def hann(length: int, device: torch.device) -> Float[Tensor, "L"]:
    """Return a periodic Hann window."""
    return torch.hann_window(length, periodic=True, device=device)


def cosine_transform(count: int, bands: int) -> Float[Tensor, "K M"]:
    """Return the first rows of the orthonormal cosine transform (DCT-II), which turns log-mel bands into MFCCs."""
    angle = torch.arange(count)[:, None] * (torch.arange(bands) + 0.5) * (torch.pi / bands)
    scale = torch.full((count, 1), (2 / bands) ** 0.5)
    scale[0] = (1 / bands) ** 0.5
    return angle.cos() * scale
