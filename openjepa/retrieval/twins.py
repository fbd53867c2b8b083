"""`jepa duplicates`: groups of pictures that are nearly the same, and a picture to choose the threshold by.   S rows  D width"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from rich.table import Table

from openjepa.core.arguments import Features
from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.evaluate.space import Mapped, Space
from openjepa.retrieval.index import Index, opened
from openjepa.retrieval.nearest import NOWHERE, Near, finder
from openjepa.retrieval.thumbnails import short, thumbnail

NEIGHBOURS = 16  # of each picture that are looked at

ENOUGH = 10  # rows for each direction, to whiten wholly; of fewer it is done by half

BELOW = (0.0, 0.02, 0.05, 0.1)  # below the threshold, where a pair is shown

TOGETHER = 1024  # queries at once

SHOWN = 12  # groups in the table


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Finds groups of pictures that are nearly the same. Removes nothing."""

    index: Features  # what jepa embed wrote, a row for each picture
    threshold: float = 0.85  # cosine of whitened features from which two pictures are twins
    out: Path | None = None  # CSV and PNG get this name; by default INDEX-duplicates beside the index


class Pairs(NamedTuple):
    """Every picture and one of its nearest."""

    one: Int[np.ndarray, "P"]
    other: Int[np.ndarray, "P"]
    cosine: Float[np.ndarray, "P"]


def duplicates(settings: Duplicates) -> list[list[int]]:
    """Rows of the index in groups, the largest first; also a CSV of them, and a PNG of pairs around the threshold.

    Features are whitened first, of few pictures by half: what all pictures share, or vary in together, says nothing of two being the same. Every
    picture of a group is a twin of the group's first, which is the one with the most twins that were left: no chains.
    """
    if not -1 < settings.threshold <= 1:
        raise UserError(f"a cosine of {settings.threshold:g} is none: try --threshold 0.85")
    index = opened(settings.index)
    if not index.pooled:
        raise UserError(f"{index.file} has features of patches: embed with --kind last")
    found = nearest_pairs(index)
    groups = joined(found, settings.threshold)
    out = settings.out or index.beside("duplicates")
    listed(groups, index, out.with_name(f"{out.name}.csv"))
    drawn = picture(found, settings.threshold, index, out.with_name(f"{out.name}.png"))
    show(groups, index, settings.threshold)
    below = int(((found.cosine < settings.threshold) & (found.cosine >= settings.threshold - 0.1)).sum()) // 2
    if below:
        info(
            f"some {below} more pairs lie less than 0.1 below: --threshold {settings.threshold - 0.1:.2g} would take them"
        )
    info(f"written    {out}.csv\npicture    {drawn}")
    return groups


def nearest_pairs(index: Index) -> Pairs:
    """Each picture beside its nearest others, by the cosine of whitened features."""
    many = len(index.features) >= ENOUGH * index.features.shape[1]
    features = Mapped(index.features, Space.of(index.features, power=1.0 if many else 0.5))
    search_in = finder(features, index.beside("twins.faiss"))
    parts = []
    for first in range(0, len(features), TOGETHER):
        rows = np.arange(first, min(first + TOGETHER, len(features)))
        parts.append(pairs_of(rows, search_in.find(features[rows], NEIGHBOURS + 1)))
    return Pairs(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def pairs_of(rows: Int[np.ndarray, "Q"], near: Near) -> Pairs:
    """Every pair once where it can be told, no row with itself."""
    one = np.repeat(rows, near.rows.shape[1])
    other, cosine = near.rows.reshape(-1), near.cosine.reshape(-1)
    real = (other != one) & (other >= 0) & (cosine > NOWHERE + 0.5)
    return Pairs(one[real], other[real], cosine[real])


def joined(found: Pairs, threshold: float) -> list[list[int]]:
    """Groups of two and more, the largest first: a leader and its twins, leaders by how many twins they have."""
    twins: dict[int, set[int]] = {}
    close = found.cosine >= threshold
    for one, other in zip(found.one[close].tolist(), found.other[close].tolist(), strict=True):
        twins.setdefault(one, set()).add(other)
        twins.setdefault(other, set()).add(one)
    groups, taken = [], set()
    for leader in sorted(twins, key=lambda row: (-len(twins[row]), row)):
        free = sorted(twins[leader] - taken)
        if leader not in taken and free:
            groups.append([leader, *free])
            taken |= {leader, *free}
    return sorted(groups, key=lambda group: (-len(group), group))


def listed(groups: list[list[int]], index: Index, file: Path) -> None:
    """A line for each picture that has a twin."""
    with atomic_write(file) as temporary, temporary.open("w", newline="", errors="surrogateescape") as stream:
        lines = csv.writer(stream)
        lines.writerow(("group", "row", "file", "class"))
        for number, group in enumerate(groups):
            lines.writerows((number, row, index.pictures[row], index.classes[row]) for row in group)


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
    below = [max(edge, int(np.searchsorted(-cosine, step - threshold))) for step in BELOW]
    return [place for place in dict.fromkeys([*twins, *below]) if place < len(cosine)]
