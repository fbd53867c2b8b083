"""`jepa duplicates`: groups of pictures that are nearly the same, and a picture to choose the threshold by.   S rows  D width"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from rich.table import Table

from openjepa.core.arguments import Features
from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.evaluation.duplicates import LOWER_MARGINS, Pairs, group_pairs, nearest_pairs, write_groups
from openjepa.evaluation.index import Index, open_index
from openjepa.retrieval.thumbnails import short, thumbnail

SHOWN = 12  # groups in the table


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Finds groups of pictures that are nearly the same. Removes nothing."""

    index: Features  # what jepa embed wrote, a row for each picture
    threshold: float = 0.85  # cosine of whitened features from which two pictures are twins
    out: Path | None = None  # CSV and PNG get this name; by default INDEX-duplicates beside the index


def duplicates(settings: Duplicates) -> list[list[int]]:
    """Rows of the index in groups, the largest first; also a CSV of them, and a PNG of pairs around the threshold.

    Features are whitened first, of few pictures by half: what all pictures share, or vary in together, says nothing of two being the same. Every
    picture of a group is a twin of the group's first, which is the one with the most twins that were left: no chains.
    """
    if not -1 < settings.threshold <= 1:
        raise UserError(f"a cosine of {settings.threshold:g} is none: try --threshold 0.85")
    index = open_index(settings.index)
    if not index.pooled:
        raise UserError(f"{index.file} has features of patches: embed with --kind last")
    found = nearest_pairs(index)
    groups = group_pairs(found, settings.threshold)
    out = settings.out or index.beside("duplicates")
    write_groups(groups, index, out.with_name(f"{out.name}.csv"))
    drawn = picture(found, settings.threshold, index, out.with_name(f"{out.name}.png"))
    show(groups, index, settings.threshold)
    below = int(((found.cosine < settings.threshold) & (found.cosine >= settings.threshold - 0.1)).sum()) // 2
    if below:
        info(
            f"some {below} more pairs lie less than 0.1 below: --threshold {settings.threshold - 0.1:.2g} would take them"
        )
    info(f"written    {out}.csv\npicture    {drawn}")
    return groups


def show(groups: list[list[int]], index: Index, threshold: float) -> None:
    spare = sum(len(group) - 1 for group in groups)
    table = Table(
        "pictures", "among them", title=f"{len(groups)} groups from a cosine of {threshold:g}; {spare} could go"
    )
    for group in groups[:SHOWN]:
        table.add_row(str(len(group)), "\n".join(short(index.pictures[row]) for row in group[:3]))
    console.print(table)


def picture(found: Pairs, threshold: float, index: Index, out: Path) -> Path:
    """How like each picture its nearest is, and pairs just above and below the threshold, as PNG."""
    matplotlib.use("agg")
    once = found.one < found.other
    order = np.argsort(-found.cosine[once], kind="stable")
    one, other, cosine = (each[once][order] for each in found)
    chosen = around(cosine, threshold)
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


def around(cosine: Float[np.ndarray, "P"], threshold: float) -> list[int]:
    """Places of a falling list: of the twins the likest, the least like and some between; and some below the threshold."""
    edge = int((cosine >= threshold).sum())
    twins = [round(place) for place in np.linspace(0, edge - 1, min(edge, 4))]
    below = [max(edge, int(np.searchsorted(-cosine, step - threshold))) for step in LOWER_MARGINS]
    return [place for place in dict.fromkeys([*twins, *below]) if place < len(cosine)]
