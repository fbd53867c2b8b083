"""Write a page with the samples nearest the center of each cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from openjepa.evaluation.clusters import Clustering, describe_folders
from openjepa.evaluation.index import Index
from openjepa.viz.html import escape, format_section, write_page
from openjepa.viz.thumbnails import PageThumbnails, format_tile, warn_of_missing

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
    """Return the section of one cluster: its main folders and its samples, or those of each of its sub-clusters."""
    rows = result.rows(number)
    content = f"<p>{escape(describe_folders(rows, index))}</p>"
    if result.sub_cluster is None:
        content += format_rows(rows, index, draw)
    else:
        for sub_number in range(result.sub_cluster[rows].max() + 1):
            part = result.rows(number, sub_number)
            folders = escape(describe_folders(part, index))
            content += f"<p>{number}.{sub_number}: {len(part):,} {index.plural}, {folders}</p>"
            content += format_rows(part, index, draw)
    return format_section(f"cluster-{number}", f"Cluster {number}: {len(rows):,} {index.plural}", content)


def format_rows(rows: np.ndarray, index: Index, draw: PageThumbnails) -> str:
    """Return the pictures of the first rows."""
    files = [index.files[row] for row in rows[:SHOWN_IMAGES]]
    return f'<div class="thumbnails">{"".join(format_tile(file, draw) for file in files)}</div>'
