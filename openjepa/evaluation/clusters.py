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

MINIBATCH_ROWS = 50_000  # with more rows, use mini-batch k-means

STARTS = 4  # initializations of k-means; the best result is used


class Clustering(NamedTuple):
    """The cluster of each row, and how well clusters agree with class folders."""

    cluster: Int[np.ndarray, "S"]  # -1 where the sample could not be decoded
    cosine: Float[np.ndarray, "S"]  # to the cluster's center
    agreement: dict[str, float]  # empty without class folders
    sub_cluster: Int[np.ndarray, "S"] | None = None  # inside the cluster, if clusters were divided again

    def rows(self, number: int, sub_number: int | None = None) -> Int[np.ndarray, "R"]:
        """Return the rows of a cluster, or of one of its sub-clusters, nearest to the center first."""
        inside = self.cluster == number
        if sub_number is not None and self.sub_cluster is not None:
            inside = inside & (self.sub_cluster == sub_number)
        rows = np.flatnonzero(inside)
        return rows[np.argsort(-self.cosine[rows], kind="stable")]

    def columns(self, index: Index) -> dict[str, list]:
        """Return the columns of a table with a row for each file; the sub-cluster if clusters were divided."""
        columns = {"file": list(index.files), "class": list(index.classes)}
        columns |= {"cluster": self.cluster.tolist(), "cosine": self.cosine.tolist()}
        return columns if self.sub_cluster is None else columns | {"sub_cluster": self.sub_cluster.tolist()}


def kmeans(x: Float[np.ndarray, "S D"], count: int, seed: int) -> tuple[Int[np.ndarray, "S"], Float[np.ndarray, "S"]]:
    """Return each row's cluster, numbered from the largest, and its cosine to the center. Requires scikit-learn."""
    try:
        from sklearn.cluster import KMeans, MiniBatchKMeans
    except ImportError as error:
        raise UserError("jepa cluster requires scikit-learn: pip install 'openjepa[search]'") from error
    kind: Any = KMeans if len(x) <= MINIBATCH_ROWS else MiniBatchKMeans
    fitted = kind(count, n_init=STARTS, random_state=seed).fit(x)
    rank = np.argsort(np.argsort(-np.bincount(fitted.labels_, minlength=count), kind="stable"))
    cosine = np.einsum("sd,sd->s", x, normalize_rows(fitted.cluster_centers_)[fitted.labels_])
    return rank[fitted.labels_], cosine


def divide_clusters(
    x: Float[np.ndarray, "S D"], cluster: Int[np.ndarray, "S"], count: int, seed: int
) -> Int[np.ndarray, "S"]:
    """Divide each cluster by k-means of features, which may be others than those that the clusters are made of."""
    result = np.full(len(x), -1)
    for number in range(cluster.max() + 1):
        rows = np.flatnonzero(cluster == number)
        result[rows] = kmeans(x[rows], count, seed)[0] if len(rows) > count else np.arange(len(rows))
    return result


def class_agreement(members: Int[np.ndarray, "S"], classes: np.ndarray) -> dict[str, float]:
    """Compute how well clusters agree with classes.

    Adjusted mutual information and adjusted Rand index are 0 by chance and 1 at best. Purity is the fraction of rows
    whose class is the most frequent one of their cluster; it grows with the number of clusters.
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    purity = sum(Counter(classes[members == each]).most_common(1)[0][1] for each in np.unique(members)) / len(members)
    return {
        "adjusted mutual information": float(adjusted_mutual_info_score(classes, members)),
        "adjusted Rand index": float(adjusted_rand_score(classes, members)),
        "purity": purity,
    }


def describe_folders(rows: Int[np.ndarray, "R"], index: Index) -> str:
    """Format the most frequent class folders of some rows with their shares."""
    names = Counter(index.classes[row] for row in rows)
    total = sum(names.values())
    return ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in names.most_common(3) if name)


def write_clusters(result: Clustering, index: Index, file: Path) -> None:
    """Write a CSV file with a line per row: file, class, cluster, cosine, and the sub-cluster if there is one."""
    columns = result.columns(index) | {"cosine": [f"{each:.4f}" for each in result.cosine]}
    with (
        atomic_write(file) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        lines = csv.writer(stream)
        lines.writerow(columns)
        lines.writerows(zip(*columns.values(), strict=True))
