"""Command `jepa cluster`: cluster the pictures of an index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from openjepa.core.arguments import Features
from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.evaluation.clusters import Clustering, class_agreement, kmeans, main_folders, write_clusters
from openjepa.evaluation.index import Index, open_index
from openjepa.evaluation.nearest import normalize_rows
from openjepa.viz.clusters import write_cluster_page


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Sorts pictures into groups by k-means on their features; with class folders, says how the two agree."""

    index: Features  # what jepa embed wrote, a row for each picture
    clusters: int = 0  # 0: as many as there are class folders, or else the root of half the number of pictures
    seed: int = 0
    out: Path | None = None  # CSV and HTML get this name; by default INDEX-clusters beside the index


def cluster(settings: Cluster) -> Clustering:
    """K-means on features of length 1. Writes a CSV and a page, the pictures nearest each centre first."""
    index = open_index(settings.index)
    if not index.pooled:
        raise UserError(f"{index.file} has features of patches: embed with --features last")
    x = normalize_rows(index.features)
    sound = np.abs(x).sum(1) > 0
    classes = sorted({name for name in index.classes if name})
    labelled = len(classes) > 1
    count = settings.clusters or (len(classes) if labelled else max(2, round((sound.sum() / 2) ** 0.5)))
    if sound.sum() < 2:
        raise UserError(
            f"{settings.index} has {sound.sum()} pictures that could be decoded: too few for clusters; embed more"
        )
    if not 2 <= count <= sound.sum():
        raise UserError(
            f"{sound.sum()} pictures cannot be in {count} clusters: try --clusters {min(10, int(sound.sum()))}"
        )
    members, near = np.full(len(x), -1), np.zeros(len(x), np.float32)
    members[sound], near[sound] = kmeans(x[sound], count, settings.seed)
    result = Clustering(
        members, near, class_agreement(members[sound], np.array(index.classes)[sound]) if labelled else {}
    )
    out = settings.out or index.beside("clusters")
    print_clusters(result, index)
    write_clusters(result, index, out.with_name(f"{out.name}.csv"))
    info(f"written    {out}.csv\npage       {write_cluster_page(result, index, out.with_name(f'{out.name}.html'))}")
    return result


def print_clusters(result: Clustering, index: Index) -> None:
    table = Table("cluster", "pictures", "folders")
    for number in range(result.cluster.max() + 1):
        table.add_row(str(number), str(int((result.cluster == number).sum())), main_folders(result, index, number))
    console.print(table)
    for name, value in result.agreement.items():
        info(f"{name:<28} {value:.3f}")
