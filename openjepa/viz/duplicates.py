"""Draw pairs around the threshold and the distribution of nearest-neighbor cosines.   P pairs"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from openjepa.evaluation.duplicates import LOWER_MARGINS, Pairs
from openjepa.evaluation.index import Index
from openjepa.viz.canvas import write_png
from openjepa.viz.thumbnails import thumbnail

SHOWN_PAIRS = 12  # groups listed in the table


def draw_pairs(pairs: Pairs, threshold: float, index: Index, out: Path, pictures: bool = True) -> Path:
    """Write a PNG with a histogram of nearest-neighbor cosines, and pictures of pairs near the threshold below it."""
    once = pairs.one < pairs.other  # each pair is listed in both orders
    order = np.argsort(-pairs.cosine[once], kind="stable")
    one, other, cosine = (each[once][order] for each in pairs)
    modality = index.modality
    chosen = pairs_around(cosine, threshold) if pictures else []
    figure = Figure(figsize=(2.6 + 1.15 * max(len(chosen), 2), 6.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.25))
    upper, lower = halves
    axes, best = upper.add_subplot(), np.full(len(index.files), -1.0)
    np.maximum.at(best, pairs.one, pairs.cosine)
    if (best > -1).any():
        axes.hist(best[best > -1], bins=100, color="#3b6ea5")
        axes.set_yscale("log")
    axes.axvline(threshold, color="#c8401a", linestyle="--", label=f"threshold {threshold:g}")
    axes.set(
        xlabel=f"cosine similarity to the nearest other {index.plural[:-1]} (whitened features)", ylabel=index.plural
    )
    axes.legend(loc="best")
    lower.suptitle(
        "pairs and their cosine: red = duplicates, blue = below the threshold" if chosen else "no pairs", fontsize=9
    )
    for column, pair in enumerate(chosen):
        for line, row in enumerate((one[pair], other[pair])):
            tile = lower.add_subplot(2, len(chosen), line * len(chosen) + column + 1)
            tile.imshow(thumbnail(modality, index.files[row]))
            tile.set_axis_off()
            if line == 0:
                duplicate = cosine[pair] >= threshold
                tile.set_title(f"{cosine[pair]:.3f}", fontsize=8, color="#c8401a" if duplicate else "#3b6ea5")
    return write_png(figure, out)


def pairs_around(cosine: Float[np.ndarray, "P"], threshold: float) -> list[int]:
    """Choose pairs from a descending list: up to 4 evenly spaced at or above the threshold and some below it."""
    edge = int((cosine >= threshold).sum())
    above = [round(position) for position in np.linspace(0, edge - 1, min(edge, 4))]
    below = [max(edge, int(np.searchsorted(-cosine, margin - threshold))) for margin in LOWER_MARGINS]
    return [position for position in dict.fromkeys([*above, *below]) if position < len(cosine)]
