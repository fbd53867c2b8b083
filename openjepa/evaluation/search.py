"""Search an index by the features of a sample or of a part of it.   D width  N tokens"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from openjepa.evaluation.index import Index
from openjepa.evaluation.nearest import NO_COSINE, Finder, Neighbors, choose_finder, normalize_rows
from openjepa.evaluation.settings import Search
from openjepa.evaluation.whitening import WhitenedView, Whitening


class Hit(NamedTuple):
    """A sample that was found."""

    row: int
    cosine: float
    file: str
    label: str  # name of its folder


class PooledSearch(NamedTuple):
    """Search in an index with one vector per sample, with or without whitening."""

    finder: Finder
    whitening: Whitening | None  # None = plain features

    @classmethod
    def of(cls, settings: Search, index: Index) -> PooledSearch:
        """Prepare the search; reuse the approximate index on disk, if one is needed."""
        whitening = Whitening.partial(index.features) if settings.whiten else None
        rows = WhitenedView(index.features, whitening) if whitening else index.features
        file = index.sibling_path("whitened.faiss" if settings.whiten else "plain.faiss")
        return cls(choose_finder(rows, file, settings.exact), whitening)

    def find(self, queries: Float[np.ndarray, "Q D"], count: int) -> Neighbors:
        """Find the nearest rows to the features of queries."""
        return self.finder.find(self.whitening.map(queries) if self.whitening else queries, count)


def patch_means(features: Float[np.ndarray, "S N D"]) -> Float[np.ndarray, "S D"]:
    """Average the token features of each sample."""
    parts = [np.asarray(features[first : first + 256]).mean(1) for first in range(0, len(features), 256)]
    return np.concatenate(parts)


def best_patch_cosines(features: Float[np.ndarray, "S N D"], vector: Float[np.ndarray, "D"]) -> Float[np.ndarray, "S"]:
    """Return for each sample the highest cosine of any of its tokens to a vector."""
    best = np.empty(len(features), np.float32)
    for first in range(0, len(features), 256):
        part = normalize_rows(features[first : first + 256])
        cosine = (part @ normalize_rows(vector)).max(1)
        best[first : first + 256] = np.where(np.abs(part).sum((1, 2)) > 0, cosine, NO_COSINE)
    return best


def top_hits(index: Index, near: Neighbors, row: int | None, count: int) -> list[Hit]:
    """List the first query's neighbors, without the query itself and without undecodable samples."""
    pairs = zip(near.rows[0].tolist(), near.cosine[0].tolist(), strict=True)
    valid = [(other, cosine) for other, cosine in pairs if other >= 0 and other != row and cosine > NO_COSINE + 0.5]
    return [Hit(other, cosine, index.files[other], index.classes[other]) for other, cosine in valid[:count]]
