"""Write a page with the samples nearest the center of each cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from openjepa.evaluation.clusters import Clustering, describe_folders
from openjepa.evaluation.index import Index
from openjepa.viz.html import escape, format_section, write_page
from openjepa.viz.thumbnails import PageThumbnails, warn_of_missing

SHOWN_IMAGES = 16  # samples of each cluster on the page


def write_cluster_page(result: Clustering, index: Index, out: Path) -> Path:
    """Write one HTML file with the samples nearest each center and return its path."""
    first = np.flatnonzero(result.cluster >= 0)[:SHOWN_IMAGES]
    warn_of_missing((index.files[row] for row in first), index.plural)
    draw = PageThumbnails(index.modality)
    sections = [format_cluster(result, index, number, draw) for number in range(result.cluster.max() + 1)]
    scores = "; ".join(f"{name} {value:.3f}" for name, value in result.agreement.items())
    caption = (
        f"{len(index.files):,} {index.plural} in {len(sections)} clusters, "
        f"each with the {SHOWN_IMAGES} {index.plural} nearest its center. {scores}"
    )
    return write_page(f"Clusters of {index.file.name}", "\n".join((f"<p>{escape(caption)}</p>", *sections)), out)


def format_cluster(result: Clustering, index: Index, number: int, draw: PageThumbnails) -> str:
    """Return the section of one cluster: its main folders and its samples, nearest to the center first."""
    rows = np.flatnonzero(result.cluster == number)
    rows = rows[np.argsort(-result.cosine[rows], kind="stable")]
    files = [index.files[row] for row in rows[:SHOWN_IMAGES]]
    tiles = [(draw(file, 96), escape(file)) for file in files]
    images = "".join(f'<img src="{source}" alt="{name}" title="{name}">' for source, name in tiles)
    folders = escape(describe_folders(result, index, number))
    content = f'<p>{folders}</p><div class="thumbnails">{images}</div>'
    return format_section(f"cluster-{number}", f"Cluster {number}: {len(rows):,} {index.plural}", content)
