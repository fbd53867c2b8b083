"""Counter-based random numbers: the same for any number of workers and ranks, and after a restart."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt64
from torch import Tensor

GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)


def mix_bits(x: UInt64[np.ndarray, "*S"]) -> UInt64[np.ndarray, "*S"]:
    """Mix the bits of 64-bit integers with the finalizer of SplitMix64 (Steele, Lea and Flood, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def random_words(seed: int, name: str, index: np.ndarray, count: int) -> UInt64[np.ndarray, "B K"]:
    """Return `count` random 64-bit words for each index, a pure function of (seed, name, index)."""
    with np.errstate(over="ignore"):  # overflow is intended: arithmetic modulo 2**64
        key = mix_bits(np.array([seed], np.uint64) * GOLDEN_RATIO + np.uint64(zlib.crc32(name.encode())))
        row = mix_bits(key + index.astype(np.uint64) * GOLDEN_RATIO)
        return mix_bits(row[:, None] + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN_RATIO)


@dataclass(frozen=True)
class CounterRNG:
    """Random numbers in [0, 1) for the samples of one step, without state.

    A value is a pure function of (seed, sample index, name): the seed of the run, the sample's index in the run, and a
    name such as "crop" for its purpose. Asking twice returns the same values, so a sample is augmented and masked the
    same way for any batch size, number of workers and ranks, and after a resume. The index counts on from epoch to
    epoch (see Batch.index), so every epoch draws new values. `global_uniform` is keyed by the step instead of the
    index, for values that all samples of the global batch share, such as block sizes.
    """

    seed: int
    step: int
    index: np.ndarray  # sample indices of this rank
    global_index: np.ndarray  # sample indices of the global batch
    offset: int = 0  # position of index[0] in global_index
    prefix: str = ""  # put before every name; see fold_in

    @classmethod
    def of(cls, seed: int, step: int, index: np.ndarray) -> CounterRNG:
        """Return the generator of a process that holds the whole global batch."""
        return cls(seed, step, index, index)

    def uniform(self, name: str, *shape: int) -> Float[Tensor, "B *S"]:
        """Draw values for each sample of this rank, keyed by (seed, sample index, name)."""
        return self._floats(name, self.index, shape)

    def global_uniform(self, name: str, *shape: int) -> Float[Tensor, "*S"]:
        """Draw values that all samples of the global batch share, keyed by (seed, step, name)."""
        return self._floats(f"shared {name}", np.array([self.step]), shape)[0]

    def select(self, rows: np.ndarray) -> CounterRNG:
        """Return the generator of a subset of this rank's samples; `rows` are positions or a boolean mask."""
        return replace(self, index=self.index[rows])

    def global_slice(self, start: int, stop: int) -> CounterRNG:
        """Return the generator of the samples start … stop of the global batch, whichever rank holds them."""
        return replace(self, index=self.global_index[start:stop], offset=start)

    def fold_in(self, repeat: int) -> CounterRNG:
        """Return a generator with new values under the same names; `repeat` 0 returns the original values."""
        return replace(self, prefix=f"turn {repeat} " if repeat else "")

    def _floats(self, name: str, index: np.ndarray, shape: tuple[int, ...]) -> Float[Tensor, "B *S"]:
        words = random_words(self.seed, self.prefix + name, index, int(np.prod(shape, dtype=int)))
        floats = (words >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)  # 24 bits: exact in fp32, below 1
        return torch.from_numpy(floats.reshape(len(index), *shape))


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """Return the order in which an epoch visits the samples: a permutation keyed by (seed, epoch)."""
    return np.argsort(random_words(seed, f"order {epoch}", np.arange(size), 1)[:, 0], kind="stable")
