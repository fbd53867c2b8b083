"""Command `jepa duplicates`: group pictures that are nearly the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from openjepa.core.arguments import Features
from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.evaluation.duplicates import group_pairs, nearest_pairs, write_groups
from openjepa.evaluation.index import Index, open_index
from openjepa.viz.duplicates import SHOWN_PAIRS, draw_pairs
from openjepa.viz.thumbnails import shorten_path


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
        raise UserError(f"{index.file} has features of patches: embed with --features last")
    found = nearest_pairs(index)
    groups = group_pairs(found, settings.threshold)
    out = settings.out or index.beside("duplicates")
    write_groups(groups, index, out.with_name(f"{out.name}.csv"))
    drawn = draw_pairs(found, settings.threshold, index, out.with_name(f"{out.name}.png"))
    print_groups(groups, index, settings.threshold)
    below = int(((found.cosine < settings.threshold) & (found.cosine >= settings.threshold - 0.1)).sum()) // 2
    if below:
        info(
            f"some {below} more pairs lie less than 0.1 below: --threshold {settings.threshold - 0.1:.2g} would take them"
        )
    info(f"written    {out}.csv\npicture    {drawn}")
    return groups


def print_groups(groups: list[list[int]], index: Index, threshold: float) -> None:
    spare = sum(len(group) - 1 for group in groups)
    table = Table(
        "pictures", "among them", title=f"{len(groups)} groups from a cosine of {threshold:g}; {spare} could go"
    )
    for group in groups[:SHOWN_PAIRS]:
        table.add_row(str(len(group)), "\n".join(shorten_path(index.pictures[row]) for row in group[:3]))
    console.print(table)
