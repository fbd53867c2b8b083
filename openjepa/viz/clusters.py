"""A page with the pictures nearest each cluster's center."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np

from openjepa.evaluation.clusters import Clustering, main_folders
from openjepa.evaluation.index import Index
from openjepa.viz.html import section, write_page
from openjepa.viz.thumbnails import jpeg_data_url, thumbnail, warn_of_missing

SHOWN_IMAGES = 16  # pictures of a cluster on the page


def write_cluster_page(result: Clustering, index: Index, out: Path) -> Path:
    """The pictures nearest each centre, as one HTML file."""
    sections = []
    warn_of_missing(index.pictures[row] for row in np.flatnonzero(result.cluster >= 0)[:SHOWN_IMAGES])
    for number in range(result.cluster.max() + 1):
        rows = np.flatnonzero(result.cluster == number)
        rows = rows[np.argsort(-result.near[rows], kind="stable")]
        shown = [index.pictures[row] for row in rows[:SHOWN_IMAGES]]
        images = "".join(
            f'<img src="{jpeg_data_url(thumbnail(file, 96))}" alt="{html.escape(file)}" title="{html.escape(file)}">'
            for file in shown
        )
        said = html.escape(main_folders(result, index, number))
        content = f'<p>{said}</p><div class="thumbnails">{images}</div>'
        sections.append(section(f"cluster-{number}", f"Cluster {number}: {len(rows):,} pictures", content))
    scores = "; ".join(f"{name} {value:.3f}" for name, value in result.agreement.items())
    caption = f"{len(index.pictures):,} pictures in {len(sections)} clusters; of each the {SHOWN_IMAGES} nearest its centre. {scores}"
    return write_page(f"Clusters of {index.file.name}", "\n".join((f"<p>{html.escape(caption)}</p>", *sections)), out)
