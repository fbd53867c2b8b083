"""`jepa cluster`: the pictures of an index in groups, by k-means, with a page to look at them.   S rows  D width  K clusters"""

from __future__ import annotations

import csv
import html
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from rich.table import Table

from openjepa.core.arguments import Features
from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.figures.canvas import section, written
from openjepa.retrieval.index import Index, opened
from openjepa.retrieval.nearest import unit
from openjepa.retrieval.thumbnails import as_data, thumbnail, warn_of_missing

MANY = 50_000  # rows; of more, centres move after a batch of them at a time

SHOWN = 16  # pictures of a cluster on the page

STARTS = 4  # of k-means; the best is kept


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Sorts pictures into groups by k-means on their features; with class folders, says how the two agree."""

    index: Features  # what jepa embed wrote, a row for each picture
    clusters: int = 0  # 0: as many as there are class folders, or else the root of half the number of pictures
    seed: int = 0
    out: Path | None = None  # CSV and HTML get this name; by default INDEX-clusters beside the index


class Clustered(NamedTuple):
    """A cluster for each row, -1 where there are no features, and how well clusters and class folders agree."""

    cluster: Int[np.ndarray, "S"]
    near: Float[np.ndarray, "S"]  # cosine to the cluster's centre
    agreement: dict[str, float]  # empty without labels


def cluster(settings: Cluster) -> Clustered:
    """K-means on features of length 1. Writes a CSV and a page, the pictures nearest each centre first."""
    index = opened(settings.index)
    if not index.pooled:
        raise UserError(f"{index.file} has features of patches: embed with --kind last")
    x = unit(index.features)
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
    members[sound], near[sound] = means(x[sound], count, settings.seed)
    result = Clustered(members, near, agreement(members[sound], np.array(index.classes)[sound]) if labelled else {})
    out = settings.out or index.beside("clusters")
    show(result, index)
    listed(result, index, out.with_name(f"{out.name}.csv"))
    info(f"written    {out}.csv\npage       {page(result, index, out.with_name(f'{out.name}.html'))}")
    return result


def means(x: Float[np.ndarray, "S D"], count: int, seed: int) -> tuple[Int[np.ndarray, "S"], Float[np.ndarray, "S"]]:
    """Each row's cluster, the largest cluster first, and the cosine to its centre."""
    try:
        from sklearn.cluster import KMeans, MiniBatchKMeans
    except ImportError as error:
        raise UserError("clusters need an extra: pip install 'openjepa[search]'") from error
    kind: Any = KMeans if len(x) <= MANY else MiniBatchKMeans
    found = kind(count, n_init=STARTS, random_state=seed).fit(x)
    rank = np.argsort(np.argsort(-np.bincount(found.labels_, minlength=count), kind="stable"))
    near = np.einsum("sd,sd->s", x, unit(found.cluster_centers_)[found.labels_])
    return rank[found.labels_], near


def agreement(members: Int[np.ndarray, "S"], classes: np.ndarray) -> dict[str, float]:
    """How clusters and classes agree: mutual information and pairs, both 0 by chance and 1 at best, and purity."""
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    purity = sum(Counter(classes[members == each]).most_common(1)[0][1] for each in np.unique(members)) / len(members)
    return {
        "adjusted mutual information": float(adjusted_mutual_info_score(classes, members)),
        "adjusted Rand index": float(adjusted_rand_score(classes, members)),
        "purity": purity,
    }


def most(result: Clustered, index: Index, number: int) -> str:
    """The folders that most of a cluster lies in."""
    names = Counter(index.classes[row] for row in np.flatnonzero(result.cluster == number))
    whole = sum(names.values())
    return ", ".join(f"{name} {100 * many / whole:.0f} %" for name, many in names.most_common(3) if name)


def show(result: Clustered, index: Index) -> None:
    table = Table("cluster", "pictures", "folders")
    for number in range(result.cluster.max() + 1):
        table.add_row(str(number), str(int((result.cluster == number).sum())), most(result, index, number))
    console.print(table)
    for name, value in result.agreement.items():
        info(f"{name:<28} {value:.3f}")


def listed(result: Clustered, index: Index, file: Path) -> None:
    """A line for each row."""
    with atomic_write(file) as temporary, temporary.open("w", newline="", errors="surrogateescape") as stream:
        lines = csv.writer(stream)
        lines.writerow(("file", "class", "cluster", "cosine"))
        for row in zip(index.pictures, index.classes, result.cluster.tolist(), result.near.tolist(), strict=True):
            lines.writerow((*row[:3], f"{row[3]:.4f}"))


def page(result: Clustered, index: Index, out: Path) -> Path:
    """The pictures nearest each centre, as one HTML file."""
    sections = []
    warn_of_missing(index.pictures[row] for row in np.flatnonzero(result.cluster >= 0)[:SHOWN])
    for number in range(result.cluster.max() + 1):
        rows = np.flatnonzero(result.cluster == number)
        rows = rows[np.argsort(-result.near[rows], kind="stable")]
        shown = [index.pictures[row] for row in rows[:SHOWN]]
        images = "".join(
            f'<img src="{as_data(thumbnail(file, 96))}" alt="{html.escape(file)}" title="{html.escape(file)}">'
            for file in shown
        )
        said = html.escape(most(result, index, number))
        content = f'<p>{said}</p><div class="thumbnails">{images}</div>'
        sections.append(section(f"cluster-{number}", f"Cluster {number}: {len(rows):,} pictures", content))
    scores = "; ".join(f"{name} {value:.3f}" for name, value in result.agreement.items())
    caption = f"{len(index.pictures):,} pictures in {len(sections)} clusters; of each the {SHOWN} nearest its centre. {scores}"
    return written(f"Clusters of {index.file.name}", "\n".join((f"<p>{html.escape(caption)}</p>", *sections)), out)
