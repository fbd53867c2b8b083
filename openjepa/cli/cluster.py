"""Command `jepa cluster`: cluster the samples of an index."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from openjepa.cli.settings import Cluster
from openjepa.core.console import draw_safely, info
from openjepa.core.errors import UserError
from openjepa.core.tables import print_table
from openjepa.evaluation.clusters import (
    Clustering,
    class_agreement,
    describe_folders,
    divide_clusters,
    kmeans,
    write_clusters,
)
from openjepa.evaluation.index import Index, open_index
from openjepa.evaluation.nearest import normalize_rows
from openjepa.evaluation.undecodable import report_empty_rows
from openjepa.viz.clusters import write_cluster_page
from openjepa.viz.thumbnails import can_draw


def cluster(settings: Cluster) -> Clustering:
    """Run k-means on features scaled to length 1; write a CSV file and a page of the clusters."""
    index = open_index(settings.index)
    if not index.pooled:
        raise UserError(f"{index.file} has one vector per token: run jepa embed with --features last")
    x = normalize_rows(index.features)
    valid = np.abs(x).sum(1) > 0
    total = int(valid.sum())
    report_empty_rows(index, ~valid)
    classes = sorted({name for name in index.classes if name})
    labeled = len(classes) > 1
    count = settings.clusters or (len(classes) if labeled else max(2, round((total / 2) ** 0.5)))
    if total < 2:
        raise UserError(
            f"{settings.index} has {total} decodable {index.plural}, too few to cluster: run jepa embed on more"
        )
    if not 2 <= count <= total:
        raise UserError(f"cannot put {total} {index.plural} into {count} clusters: try --clusters {min(10, total)}")
    members, cosine = np.full(len(x), -1), np.zeros(len(x), np.float32)
    members[valid], cosine[valid] = kmeans(x[valid], count, settings.seed)
    agreement = class_agreement(members[valid], np.array(index.classes)[valid]) if labeled else {}
    result = Clustering(members, cosine, agreement, divide(index, x, members, settings))
    out = settings.out or index.sibling_path("clusters")
    write_clusters(result, index, out.with_name(f"{out.name}.csv"))
    print_clusters(result, index)
    info(f"written    {out}.csv")
    if can_draw(index.modality, "jepa cluster"):
        html = out.with_name(f"{out.name}.html")
        if draw_safely(f"the page {html}", lambda: write_cluster_page(result, index, html)):
            info(f"page       {html}")
    return result


def divide(
    index: Index, x: Float[np.ndarray, "S D"], members: Int[np.ndarray, "S"], settings: Cluster
) -> Int[np.ndarray, "S"] | None:
    """Return the sub-cluster of each row, by the same features or by those of --sub-features; None: not divided.

    Raises UserError if the other features are of other files.
    """
    if not settings.sub_clusters and not settings.sub_features:
        return None
    if settings.sub_clusters < 2:
        raise UserError(f"--sub-clusters must be at least 2, got {settings.sub_clusters}: try --sub-clusters 3")
    if settings.sub_features:
        other = open_index(settings.sub_features)
        if not other.pooled or list(other.files) != list(index.files):
            raise UserError(f"{settings.sub_features} has not one vector for each file of {settings.index}")
        x = normalize_rows(other.features)
    return divide_clusters(x, members, settings.sub_clusters, settings.seed)


def describe_result(settings: Cluster, result: Clustering) -> dict[str, Any]:
    """Return the clusters with the file of each row, for --json."""
    columns = result.columns(open_index(settings.index))
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {"clusters": rows, "agreement": result.agreement}


def print_clusters(result: Clustering, index: Index) -> None:
    """Print the size and the main class folders of each cluster."""
    rows = [
        (str(number), str(len(rows)), describe_folders(rows, index))
        for number, rows in ((each, result.rows(each)) for each in range(result.cluster.max() + 1))
    ]
    print_table(("cluster", index.plural, "folders"), rows)
    for name, value in result.agreement.items():
        info(f"{name:<28} {value:.3f}")
