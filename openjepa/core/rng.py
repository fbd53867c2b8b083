"""Counter-based random numbers: a function of seed, sample and name, equal for any number of workers, ranks and restarts."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt64
from torch import Tensor

GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)


def mix_bits(x: UInt64[np.ndarray, "*S"]) -> UInt64[np.ndarray, "*S"]:
    """64 well-mixed bits for each 64-bit number: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def random_words(seed: int, name: str, place: np.ndarray, count: int) -> UInt64[np.ndarray, "B K"]:
    """`count` random 64-bit words for each place."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is meant
        key = mix_bits(np.array([seed], np.uint64) * GOLDEN_RATIO + np.uint64(zlib.crc32(name.encode())))
        row = mix_bits(key + place.astype(np.uint64) * GOLDEN_RATIO)
        return mix_bits(row[:, None] + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN_RATIO)


@dataclass(frozen=True)
class CounterRNG:
    """Uniforms in [0, 1) for one step's samples. No state: ask twice, get the same.

    A rank holds the numbers of its own samples and, for what must agree over ranks, those of the whole global batch.
    """

    seed: int
    step: int
    index: np.ndarray  # n of this rank's samples
    global_index: np.ndarray  # n of the global batch
    offset: int = 0  # place of numbers[0] in the global batch
    prefix: str = ""  # of every name: numbers of their own for a second asker

    @classmethod
    def of(cls, seed: int, step: int, numbers: np.ndarray) -> CounterRNG:
        """Draws of a process that holds the whole batch."""
        return cls(seed, step, numbers, numbers)

    def uniform(self, name: str, *shape: int) -> Float[Tensor, "B *S"]:
        """A sample's own numbers: keyed by (seed, n, name)."""
        return self._floats(name, self.index, shape)

    def global_uniform(self, name: str, *shape: int) -> Float[Tensor, "*S"]:
        """The global batch's numbers: keyed by (seed, step, name)."""
        return self._floats(f"shared {name}", np.array([self.step]), shape)[0]

    def select(self, rows: np.ndarray) -> CounterRNG:
        """The draws of some of the samples."""
        return replace(self, index=self.index[rows])

    def global_slice(self, start: int, stop: int) -> CounterRNG:
        """The draws of the samples at places start … stop of the global batch, whoever holds them."""
        return replace(self, index=self.global_index[start:stop], offset=start)

    def fold_in(self, turn: int) -> CounterRNG:
        """Fresh numbers under the same names, for one who asks a second time; turn 0 is this one."""
        return replace(self, prefix=f"turn {turn} " if turn else "")

    def _floats(self, name: str, place: np.ndarray, shape: tuple[int, ...]) -> Float[Tensor, "B *S"]:
        words = random_words(self.seed, self.prefix + name, place, int(np.prod(shape, dtype=int)))
        floats = (words >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)  # 24 bits: exact in fp32, below 1
        return torch.from_numpy(floats.reshape(len(place), *shape))


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order in which an epoch visits the samples: a permutation keyed by (seed, epoch)."""
    return np.argsort(random_words(seed, f"order {epoch}", np.arange(size), 1)[:, 0], kind="stable")
