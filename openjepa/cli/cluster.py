"""Command `jepa cluster`: cluster the samples of an index."""

from __future__ import annotations

import numpy as np
from rich.table import Table

from openjepa.cli.settings import Cluster
from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.evaluation.clusters import Clustering, class_agreement, describe_folders, kmeans, write_clusters
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
    result = Clustering(members, cosine, agreement)
    out = settings.out or index.sibling_path("clusters")
    print_clusters(result, index)
    write_clusters(result, index, out.with_name(f"{out.name}.csv"))
    info(f"written    {out}.csv")
    if can_draw(index.modality, "jepa cluster"):
        info(f"page       {write_cluster_page(result, index, out.with_name(f'{out.name}.html'))}")
    return result


def print_clusters(result: Clustering, index: Index) -> None:
    """Print the size and the main class folders of each cluster."""
    table = Table("cluster", index.plural, "folders")
    for number in range(result.cluster.max() + 1):
        table.add_row(str(number), str(int((result.cluster == number).sum())), describe_folders(result, index, number))
    console.print(table)
    for name, value in result.agreement.items():
        info(f"{name:<28} {value:.3f}")
