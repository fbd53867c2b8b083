"""Cluster the rows of an index by k-means.   S rows  D width  K clusters"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.evaluation.index import Index
from openjepa.evaluation.nearest import normalize_rows

MINIBATCH_ROWS = 50_000  # rows; of more, centres move after a batch of them at a time

STARTS = 4  # of k-means; the best is kept


class Clustering(NamedTuple):
    """A cluster for each row, -1 where there are no features, and how well clusters and class folders agree."""

    cluster: Int[np.ndarray, "S"]
    near: Float[np.ndarray, "S"]  # cosine to the cluster's centre
    agreement: dict[str, float]  # empty without labels


def kmeans(x: Float[np.ndarray, "S D"], count: int, seed: int) -> tuple[Int[np.ndarray, "S"], Float[np.ndarray, "S"]]:
    """Each row's cluster, the largest cluster first, and the cosine to its centre."""
    try:
        from sklearn.cluster import KMeans, MiniBatchKMeans
    except ImportError as error:
        raise UserError("clusters need an extra: pip install 'openjepa[search]'") from error
    kind: Any = KMeans if len(x) <= MINIBATCH_ROWS else MiniBatchKMeans
    found = kind(count, n_init=STARTS, random_state=seed).fit(x)
    rank = np.argsort(np.argsort(-np.bincount(found.labels_, minlength=count), kind="stable"))
    near = np.einsum("sd,sd->s", x, normalize_rows(found.cluster_centers_)[found.labels_])
    return rank[found.labels_], near


def class_agreement(members: Int[np.ndarray, "S"], classes: np.ndarray) -> dict[str, float]:
    """How clusters and classes agree: mutual information and pairs, both 0 by chance and 1 at best, and purity."""
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    purity = sum(Counter(classes[members == each]).most_common(1)[0][1] for each in np.unique(members)) / len(members)
    return {
        "adjusted mutual information": float(adjusted_mutual_info_score(classes, members)),
        "adjusted Rand index": float(adjusted_rand_score(classes, members)),
        "purity": purity,
    }


def main_folders(result: Clustering, index: Index, number: int) -> str:
    """The folders that most of a cluster lies in."""
    names = Counter(index.classes[row] for row in np.flatnonzero(result.cluster == number))
    whole = sum(names.values())
    return ", ".join(f"{name} {100 * many / whole:.0f} %" for name, many in names.most_common(3) if name)


def write_clusters(result: Clustering, index: Index, file: Path) -> None:
    """A line for each row."""
    with atomic_write(file) as temporary, temporary.open("w", newline="", errors="surrogateescape") as stream:
        lines = csv.writer(stream)
        lines.writerow(("file", "class", "cluster", "cosine"))
        for row in zip(index.pictures, index.classes, result.cluster.tolist(), result.near.tolist(), strict=True):
            lines.writerow((*row[:3], f"{row[3]:.4f}"))
