"""Center and whiten features before they are compared.   S rows  D width"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

PIECE_ROWS = 16_384  # rows at once

MAX_SAMPLE = 100_000  # rows that the space is found from

WHITENING_POWER = (
    0.5  # by which loud directions are made quieter: of ten neighbours more are of the same class (docs/interop.md)
)

VARIANCE_FLOOR = 0.01  # of the mean variance, added to every direction's: below it is little but noise


class Whitening(NamedTuple):
    """A linear map of features. The cosine between two rows of it says how alike they are."""

    mean: Float[np.ndarray, "D"]
    turn: Float[np.ndarray, "D D"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "S D"], power: float) -> Whitening:
        """Each principal direction's deviation to 1 - power: 0 leaves them as they are, 1 makes all alike but the smallest.

        Found from at most SAMPLE rows, evenly spread; those that are not finite are left out.
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
    def quieter(cls, features: Float[np.ndarray, "S D"]) -> Whitening | None:
        """Each deviation to its root; None where rows are fewer than their numbers, too few to say what is loud."""
        return cls.of(features, WHITENING_POWER) if len(features) >= features.shape[1] else None

    def map(self, features: Float[np.ndarray, "S D"]) -> Float[np.ndarray, "S D"]:
        """Rows in this space; what is not finite stays so."""
        return (np.asarray(features, np.float32) - self.mean) @ self.turn


@dataclass(frozen=True)
class WhitenedView:
    """Features in another space, mapped when they are asked for, so that a map of a file stays on its disk."""

    features: Float[np.ndarray, "S D"]
    space: Whitening

    @property
    def shape(self) -> tuple[int, ...]:
        return self.features.shape

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows) -> Float[np.ndarray, "S D"]:
        return self.space.map(self.features[rows])


def iter_pieces(features: Float[np.ndarray, "S D"]):
    """Some rows after the other, in fp32, out of a map of a file."""
    for first in range(0, len(features), PIECE_ROWS):
        yield np.asarray(features[first : first + PIECE_ROWS], np.float32)
