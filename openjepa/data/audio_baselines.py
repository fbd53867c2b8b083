"""Features of sound without an encoder.   B batch  C channels  L samples  M mel bands  T time frames  K features"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from openjepa.data.spectrogram import cosine_transform

COEFFICIENTS = 20  # MFCCs

FLATTENED = (16, 16)  # bands and frames of the flattened spectrogram


@runtime_checkable
class Spectrograms(Protocol):
    """What baselines need of the audio modality."""

    def decibels(self, view: Float[Tensor, "B C L"]) -> Float[Tensor, "B C M T"]: ...


def baselines_of(data: Spectrograms) -> dict[str, Callable[[Float[Tensor, "B C L"]], Float[Tensor, "B K"]]]:
    """Return the mean log-mel spectrum, the flattened log-mel spectrogram, and statistics of MFCCs, by name."""
    return {
        "mean log-mel": lambda view: mean_spectrum(data.decibels(view)),
        "log-mel 16×16": lambda view: flattened(data.decibels(view)),
        "MFCC statistics": lambda view: mfcc_statistics(data.decibels(view)),
    }


def mean_spectrum(spectrogram: Float[Tensor, "B C M T"]) -> Float[Tensor, "B K"]:
    """Return mean and standard deviation of each band over time."""
    return torch.cat([spectrogram.mean(-1), spectrogram.std(-1)], -1).flatten(1)


def flattened(spectrogram: Float[Tensor, "B C M T"]) -> Float[Tensor, "B K"]:
    """Return the spectrogram at a low resolution."""
    return F.adaptive_avg_pool2d(spectrogram, FLATTENED).flatten(1)


def mfcc_statistics(spectrogram: Float[Tensor, "B C M T"]) -> Float[Tensor, "B K"]:
    """Return mean and standard deviation over time of MFCCs and of their changes."""
    bands = spectrogram.shape[2]
    transform = cosine_transform(min(COEFFICIENTS, bands), bands).to(spectrogram.device)
    mfcc = transform @ spectrogram.flip(2)  # from the lowest band on
    changes = mfcc.diff(dim=-1)
    return torch.cat([mfcc.mean(-1), mfcc.std(-1), changes.std(-1)], -1).flatten(1)
