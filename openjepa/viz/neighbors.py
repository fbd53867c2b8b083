"""Pictures and their nearest neighbors, for a report.   S pictures  D width  Q queries  K neighbors"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from openjepa.evaluation.whitening import WHITENING_POWER, Whitening
from openjepa.viz.canvas import CaptionedFigure, tile_figure
from openjepa.viz.inputs import ImageBatch, evenly_spaced

QUERY_COUNT, NEIGHBOR_COUNT = 4, 6


def nearest_rows(features: Float[np.ndarray, "S D"], asked: list[int], count: int) -> Int[np.ndarray, "Q K"]:
    """The rows most like others, by the cosine of features whose loud directions are made quieter."""
    x = Whitening.of(features, WHITENING_POWER).map(features)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    cosine = x[asked] @ x.T
    cosine[np.arange(len(asked)), asked] = -np.inf
    return np.argsort(-cosine, axis=1, kind="stable")[:, :count]


def draw_neighbors(found: ImageBatch, features: Float[np.ndarray, "S D"]) -> CaptionedFigure:
    """A row for each picture asked for, evenly taken."""
    asked = evenly_spaced(len(features), QUERY_COUNT)
    near = nearest_rows(features, asked, min(NEIGHBOR_COUNT, len(features) - 1))
    pictures = found.pictures
    rows = [[pictures[row], *(pictures[other] for other in others)] for row, others in zip(asked, near, strict=True)]
    caption = f"Of {len(features)} pictures, those most like the first one of each row; jepa embed and jepa search look through all."
    columns = ["asked for", *(f"{place + 1}." for place in range(near.shape[1]))]
    return CaptionedFigure(
        "neighbours", "What it finds alike", caption, tile_figure(rows, columns, [found.titles[row] for row in asked])
    )
