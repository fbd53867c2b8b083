"""Draw pairs around the threshold, and the distribution of nearest cosines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from openjepa.evaluation.duplicates import LOWER_MARGINS, Pairs
from openjepa.evaluation.index import Index
from openjepa.viz.thumbnails import thumbnail

SHOWN_PAIRS = 12  # groups in the table


def draw_pairs(found: Pairs, threshold: float, index: Index, out: Path) -> Path:
    """How like each picture its nearest is, and pairs just above and below the threshold, as PNG."""
    matplotlib.use("agg")
    once = found.one < found.other
    order = np.argsort(-found.cosine[once], kind="stable")
    one, other, cosine = (each[once][order] for each in found)
    chosen = pairs_around(cosine, threshold)
    figure = Figure(figsize=(2.6 + 1.15 * max(len(chosen), 2), 6.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.25))
    upper, lower = halves
    axes, best = upper.add_subplot(), np.full(len(index.pictures), -1.0)
    np.maximum.at(best, found.one, found.cosine)
    if (best > -1).any():
        axes.hist(best[best > -1], bins=100, color="#3b6ea5")
        axes.set_yscale("log")
    axes.axvline(threshold, color="#c8401a", linestyle="--", label=f"threshold {threshold:g}")
    axes.set(xlabel="cosine of whitened features to the nearest other picture", ylabel="pictures")
    axes.legend(loc="best")
    lower.suptitle("pairs: in red twins by this threshold, in blue not" if chosen else "no pairs", fontsize=9)
    for column, place in enumerate(chosen):
        for line, row in enumerate((one[place], other[place])):
            shown = lower.add_subplot(2, len(chosen), line * len(chosen) + column + 1)
            shown.imshow(thumbnail(index.pictures[row]))
            shown.set_axis_off()
            if line == 0:
                twin = cosine[place] >= threshold
                shown.set_title(f"{cosine[place]:.3f}", fontsize=8, color="#c8401a" if twin else "#3b6ea5")
    figure.savefig(out, dpi=110, format="png")
    return out


def pairs_around(cosine: Float[np.ndarray, "P"], threshold: float) -> list[int]:
    """Places of a falling list: of the twins the likest, the least like and some between; and some below the threshold."""
    edge = int((cosine >= threshold).sum())
    twins = [round(place) for place in np.linspace(0, edge - 1, min(edge, 4))]
    below = [max(edge, int(np.searchsorted(-cosine, step - threshold))) for step in LOWER_MARGINS]
    return [place for place in dict.fromkeys([*twins, *below]) if place < len(cosine)]
