"""Group rows that are near duplicates.   S rows  D width"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from openjepa.core.fileio import atomic_write
from openjepa.evaluation.index import Index
from openjepa.evaluation.nearest import NO_COSINE, Neighbors, choose_finder
from openjepa.evaluation.whitening import WhitenedView, Whitening

MAX_NEIGHBORS = 16  # of each picture that are looked at

MAX_PRINTED = 10  # rows for each direction, to whiten wholly; of fewer it is done by half

LOWER_MARGINS = (0.0, 0.02, 0.05, 0.1)  # below the threshold, where a pair is shown

QUERY_ROWS = 1024  # queries at once


class Pairs(NamedTuple):
    """Every picture and one of its nearest."""

    one: Int[np.ndarray, "P"]
    other: Int[np.ndarray, "P"]
    cosine: Float[np.ndarray, "P"]


def nearest_pairs(index: Index) -> Pairs:
    """Each picture beside its nearest others, by the cosine of whitened features."""
    many = len(index.features) >= MAX_PRINTED * index.features.shape[1]
    features = WhitenedView(index.features, Whitening.of(index.features, power=1.0 if many else 0.5))
    search_in = choose_finder(features, index.beside("twins.faiss"))
    parts = []
    for first in range(0, len(features), QUERY_ROWS):
        rows = np.arange(first, min(first + QUERY_ROWS, len(features)))
        parts.append(unique_pairs(rows, search_in.find(features[rows], MAX_NEIGHBORS + 1)))
    return Pairs(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def unique_pairs(rows: Int[np.ndarray, "Q"], near: Neighbors) -> Pairs:
    """Every pair once where it can be told, no row with itself."""
    one = np.repeat(rows, near.rows.shape[1])
    other, cosine = near.rows.reshape(-1), near.cosine.reshape(-1)
    real = (other != one) & (other >= 0) & (cosine > NO_COSINE + 0.5)
    return Pairs(one[real], other[real], cosine[real])


def group_pairs(found: Pairs, threshold: float) -> list[list[int]]:
    """Groups of two and more, the largest first: a leader and its twins, leaders by how many twins they have."""
    twins: dict[int, set[int]] = {}
    close = found.cosine >= threshold
    for one, other in zip(found.one[close].tolist(), found.other[close].tolist(), strict=True):
        twins.setdefault(one, set()).add(other)
        twins.setdefault(other, set()).add(one)
    groups, taken = [], set()
    for leader in sorted(twins, key=lambda row: (-len(twins[row]), row)):
        free = sorted(twins[leader] - taken)
        if leader not in taken and free:
            groups.append([leader, *free])
            taken |= {leader, *free}
    return sorted(groups, key=lambda group: (-len(group), group))


def write_groups(groups: list[list[int]], index: Index, file: Path) -> None:
    """A line for each picture that has a twin."""
    with atomic_write(file) as temporary, temporary.open("w", newline="", errors="surrogateescape") as stream:
        lines = csv.writer(stream)
        lines.writerow(("group", "row", "file", "class"))
        for number, group in enumerate(groups):
            lines.writerows((number, row, index.pictures[row], index.classes[row]) for row in group)
