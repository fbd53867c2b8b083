"""Signal datasets: an array in memory or in a memory map.   B batch  S signals"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Samples


class SeriesArray:
    """Signals in memory or in a memory map.

    Training reads `length` samples from a random start, evaluation the first `length` samples.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, length: int, signals: np.ndarray, label: Int[Tensor, "S"], fingerprint: str, file: str = ""):
        self.length, self.signals, self.label, self.fingerprint, self.file = length, signals, label, fingerprint, file

    def __len__(self) -> int:
        return len(self.signals)

    def source(self, index: int) -> str:
        """Return the file of a signal, as FILE#NUMBER if the file has several."""
        several = f"{self.file}#{index}" if self.file else str(index)
        return several if len(self) > 1 else self.file or several

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        starts = self.signals.shape[2] - self.length + 1  # possible start positions
        start = (rng.uniform("stretch") * starts).long().tolist() if rng else [0] * len(index)
        rows = [
            self.signals[row, :, first : first + self.length] for row, first in zip(index.tolist(), start, strict=True)
        ]
        return Samples((torch.from_numpy(np.stack(rows)).float(),), self.label[index])
