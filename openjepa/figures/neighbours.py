"""Pictures and those most like them, for a report.   S pictures  D width  Q asked  K neighbours"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from openjepa.evaluation.whitening import WHITENING_POWER, Whitening
from openjepa.figures.canvas import Plate, tiled
from openjepa.figures.shown import Shown, evenly

ASKED, FOUND = 4, 6


def nearest(features: Float[np.ndarray, "S D"], asked: list[int], count: int) -> Int[np.ndarray, "Q K"]:
    """The rows most like others, by the cosine of features whose loud directions are made quieter."""
    x = Whitening.of(features, WHITENING_POWER).map(features)
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    cosine = x[asked] @ x.T
    cosine[np.arange(len(asked)), asked] = -np.inf
    return np.argsort(-cosine, axis=1, kind="stable")[:, :count]


def drawn(found: Shown, features: Float[np.ndarray, "S D"]) -> Plate:
    """A row for each picture asked for, evenly taken."""
    asked = evenly(len(features), ASKED)
    near = nearest(features, asked, min(FOUND, len(features) - 1))
    pictures = found.pictures
    rows = [[pictures[row], *(pictures[other] for other in others)] for row, others in zip(asked, near, strict=True)]
    caption = f"Of {len(features)} pictures, those most like the first one of each row; jepa embed and jepa search look through all."
    columns = ["asked for", *(f"{place + 1}." for place in range(near.shape[1]))]
    return Plate(
        "neighbours", "What it finds alike", caption, tiled(rows, columns, [found.titles[row] for row in asked])
    )
