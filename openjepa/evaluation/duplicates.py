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

MAX_NEIGHBORS = 16  # nearest rows per row that are compared

FULL_WHITENING_ROWS = 10  # rows per feature dimension; with fewer, whitening uses power 0.5 instead of 1

LOWER_MARGINS = (0.0, 0.02, 0.05, 0.1)  # below the threshold, at which the figure shows a pair

QUERY_ROWS = 1024  # queries per batch


class Pairs(NamedTuple):
    """Pairs of nearby rows and their cosines."""

    one: Int[np.ndarray, "P"]
    other: Int[np.ndarray, "P"]
    cosine: Float[np.ndarray, "P"]


def nearest_pairs(index: Index) -> Pairs:
    """Pair each row with its nearest other rows by the cosine of whitened features."""
    power = 1.0 if is_calibrated(index) else 0.5
    features = WhitenedView(index.features, Whitening.of(index.features, power=power))
    finder = choose_finder(features, index.sibling_path("twins.faiss"))
    parts = []
    for first in range(0, len(features), QUERY_ROWS):
        rows = np.arange(first, min(first + QUERY_ROWS, len(features)))
        parts.append(unique_pairs(rows, finder.find(features[rows], MAX_NEIGHBORS + 1)))
    return Pairs(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def unique_pairs(rows: Int[np.ndarray, "Q"], near: Neighbors) -> Pairs:
    """List the pairs of rows and their neighbors, without a row's match to itself and undecodable ones."""
    one = np.repeat(rows, near.rows.shape[1])
    other, cosine = near.rows.reshape(-1), near.cosine.reshape(-1)
    real = (other != one) & (other >= 0) & (cosine > NO_COSINE + 0.5)
    return Pairs(one[real], other[real], cosine[real])


def group_pairs(pairs: Pairs, threshold: float) -> list[list[int]]:
    """Group rows into a leader and its duplicates, the largest group first; no group has a chain of pairs.

    Rows with the most duplicates become leaders first; a row belongs to one group.
    """
    duplicates: dict[int, set[int]] = {}
    close = pairs.cosine >= threshold
    for one, other in zip(pairs.one[close].tolist(), pairs.other[close].tolist(), strict=True):
        duplicates.setdefault(one, set()).add(other)
        duplicates.setdefault(other, set()).add(one)
    groups, grouped = [], set()
    for leader in sorted(duplicates, key=lambda row: (-len(duplicates[row]), row)):
        free = sorted(duplicates[leader] - grouped)
        if leader not in grouped and free:
            groups.append([leader, *free])
            grouped |= {leader, *free}
    return sorted(groups, key=lambda group: (-len(group), group))


def is_calibrated(index: Index) -> bool:
    """Return whether the index has enough rows for whitening with power 1, which the default threshold assumes."""
    return len(index.features) >= FULL_WHITENING_ROWS * index.features.shape[1]


def cosines_to_leader(group: list[int], pairs: Pairs) -> list[float]:
    """Return the cosine of each row of a group to the first one, whose own is 1."""
    leader = group[0]
    at_leader = (pairs.one == leader) | (pairs.other == leader)
    others = (pairs.one + pairs.other - leader)[at_leader].tolist()
    cosines = dict(zip(others, pairs.cosine[at_leader].tolist(), strict=True))
    return [1.0, *(cosines[row] for row in group[1:])]


def write_groups(groups: list[list[int]], pairs: Pairs, index: Index, file: Path) -> None:
    """Write a CSV file with a line per row that has a duplicate, with its cosine to the first row of its group."""
    with (
        atomic_write(file) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        lines = csv.writer(stream)
        lines.writerow(("group", "row", "file", "class", "cosine"))
        for number, group in enumerate(groups):
            for row, cosine in zip(group, cosines_to_leader(group, pairs), strict=True):
                lines.writerow((number, row, index.files[row], index.classes[row], f"{cosine:.4f}"))
