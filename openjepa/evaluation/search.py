"""Search an index by the features of a picture, or of a part of it.   D width  N patches"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from openjepa.core import arguments as positional_module
from openjepa.core.arguments import Features
from openjepa.evaluation.index import Index
from openjepa.evaluation.nearest import NO_COSINE, Finder, Neighbors, choose_finder, normalize_rows
from openjepa.evaluation.whitening import WhitenedView, Whitening
from openjepa.masking.region import Box


@dataclass(frozen=True, kw_only=True)
class Search:
    """Finds the pictures most like one. Prints a table, writes a contact sheet and a page to click through."""

    index: Features  # what jepa embed wrote
    query: positional_module.Query  # a picture; or row:17, the picture of that row of the index, counted from 0
    box: Box | None = None  # a part: left, top, right, bottom, as shares from 0 to 1
    count: int = 12  # pictures to find
    whiten: bool = True  # whiten the features before they are compared
    exact: bool = False  # look at every row, however many there are; by default up to 200,000
    run: str = ""  # the encoder that made the index, if it is no longer where it was
    out: Path | None = None  # PNG and HTML get this name; by default INDEX-search beside the index
    page: bool = True  # write the page, too


class Hit(NamedTuple):
    """A picture that was found."""

    row: int
    cosine: float
    file: str
    label: str  # the folder that it lies in


class PooledSearch(NamedTuple):
    """What searches an index of one vector a picture, in the space asked for."""

    finder: Finder
    space: Whitening | None  # None: features as they are

    @classmethod
    def of(cls, settings: Search, index: Index) -> PooledSearch:
        space = Whitening.quieter(index.features) if settings.whiten else None
        rows = WhitenedView(index.features, space) if space else index.features
        return cls(
            choose_finder(rows, index.beside("whitened.faiss" if settings.whiten else "plain.faiss"), settings.exact),
            space,
        )

    def find(self, queries: Float[np.ndarray, "Q D"], count: int) -> Neighbors:
        """The nearest rows to features."""
        return self.finder.find(self.space.map(queries) if self.space else queries, count)


def patch_means(features: Float[np.ndarray, "S N D"]) -> Float[np.ndarray, "S D"]:
    """Of each picture the mean of its patches."""
    parts = [np.asarray(features[first : first + 256]).mean(1) for first in range(0, len(features), 256)]
    return np.concatenate(parts)


def best_patch_cosines(features: Float[np.ndarray, "S N D"], vector: Float[np.ndarray, "D"]) -> Float[np.ndarray, "S"]:
    """Of each picture the highest cosine of a patch."""
    best = np.empty(len(features), np.float32)
    for first in range(0, len(features), 256):
        part = normalize_rows(features[first : first + 256])
        cosine = (part @ normalize_rows(vector)).max(1)
        best[first : first + 256] = np.where(np.abs(part).sum((1, 2)) > 0, cosine, NO_COSINE)
    return best


def top_hits(index: Index, near: Neighbors, row: int | None, count: int) -> list[Hit]:
    """What is shown of the first query's neighbours: not itself, nor what could not be decoded."""
    pairs = zip(near.rows[0].tolist(), near.cosine[0].tolist(), strict=True)
    sound = [(each, cosine) for each, cosine in pairs if each >= 0 and each != row and cosine > NO_COSINE + 0.5]
    return [Hit(each, cosine, index.pictures[each], index.classes[each]) for each, cosine in sound[:count]]
