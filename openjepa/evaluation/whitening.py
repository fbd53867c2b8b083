"""Center and whiten features before they are compared.   S rows  D width"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

PIECE_ROWS = 16_384  # rows per chunk

MAX_SAMPLE = 100_000  # rows from which the whitening is computed

# partial whitening: more of the 10 nearest neighbors are of the same class (docs/reference/interop.md)
WHITENING_POWER = 0.5

VARIANCE_FLOOR = 0.01  # fraction of the mean variance, added to every direction; lower variance is mostly noise


class Whitening(NamedTuple):
    """A linear map that whitens features; the cosine of mapped rows measures their similarity."""

    mean: Float[np.ndarray, "D"]
    matrix: Float[np.ndarray, "D D"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "S D"], power: float) -> Whitening:
        """Compute the map that replaces each principal direction's standard deviation σ by σ^(1 - power).

        Power 0 only centers and rotates, 1 whitens all directions but those below the variance floor. Uses at most
        `MAX_SAMPLE` rows, evenly spaced; ignores rows that are not finite.
        """
        width = features.shape[1]
        mean, moment, count = np.zeros(width), np.zeros((width, width)), 0
        for rows in iter_pieces(features[:: max(1, len(features) // MAX_SAMPLE)]):
            x = rows[np.isfinite(rows).all(1)].astype(np.float64)
            mean, moment, count = mean + x.sum(0), moment + x.T @ x, count + len(x)
        mean /= max(count, 1)
        variance, axes = np.linalg.eigh(moment / max(count, 1) - np.outer(mean, mean))
        variance = variance.clip(0) + VARIANCE_FLOOR * max(float(variance.mean()), 1e-30)
        return cls(mean.astype(np.float32), (axes * variance ** (-power / 2)).astype(np.float32))

    @classmethod
    def partial(cls, features: Float[np.ndarray, "S D"]) -> Whitening | None:
        """Whiten with power 0.5; return None with fewer rows than dimensions, too few to estimate the covariance."""
        return cls.of(features, WHITENING_POWER) if len(features) >= features.shape[1] else None

    def map(self, features: Float[np.ndarray, "S D"]) -> Float[np.ndarray, "S D"]:
        """Map rows; rows that are not finite stay so."""
        return (np.asarray(features, np.float32) - self.mean) @ self.matrix


@dataclass(frozen=True)
class WhitenedView:
    """Features that are whitened on access, so that a memory-mapped file is not read at once."""

    features: Float[np.ndarray, "S D"]
    whitening: Whitening

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the features."""
        return self.features.shape

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows) -> Float[np.ndarray, "S D"]:
        return self.whitening.map(self.features[rows])


def iter_pieces(features: Float[np.ndarray, "S D"]):
    """Iterate over a memory-mapped matrix in chunks of rows, in fp32."""
    for first in range(0, len(features), PIECE_ROWS):
        yield np.asarray(features[first : first + PIECE_ROWS], np.float32)
