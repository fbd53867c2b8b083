"""Command `jepa duplicates`: group samples that are nearly the same."""

from __future__ import annotations

import numpy as np
from rich.table import Table

from openjepa.cli.settings import Duplicates
from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.evaluation.duplicates import group_pairs, nearest_pairs, write_groups
from openjepa.evaluation.index import Index, open_index
from openjepa.evaluation.undecodable import report_empty_rows
from openjepa.viz.duplicates import SHOWN_PAIRS, draw_pairs
from openjepa.viz.thumbnails import can_draw, shorten_path


def duplicates(settings: Duplicates) -> list[list[int]]:
    """Group the rows of an index, the largest group first; write a CSV file and a figure of pairs.

    Features are whitened first, with power 0.5 if the index has few rows: a direction in which all samples vary says
    little about two of them being the same. All samples of a group are duplicates of its first one; groups are not
    chained.
    """
    if not -1 < settings.threshold <= 1:
        raise UserError(f"--threshold must be a cosine between -1 and 1, e.g. 0.85, got {settings.threshold:g}")
    index = open_index(settings.index)
    if not index.pooled:
        raise UserError(f"{index.file} has one vector per token: run jepa embed with --features last")
    report_empty_rows(index, ~np.isfinite(index.features[:, 0]))
    pairs = nearest_pairs(index)
    groups = group_pairs(pairs, settings.threshold)
    out = settings.out or index.sibling_path("duplicates")
    write_groups(groups, index, out.with_name(f"{out.name}.csv"))
    pictures = can_draw(index.modality, "jepa duplicates")
    figure = draw_pairs(pairs, settings.threshold, index, out.with_name(f"{out.name}.png"), pictures)
    print_groups(groups, index, settings.threshold)
    below = int(((pairs.cosine < settings.threshold) & (pairs.cosine >= settings.threshold - 0.1)).sum()) // 2
    if below:
        info(f"about {below} more pairs with --threshold {settings.threshold - 0.1:.2g}")
    info(f"written    {out}.csv\nfigure     {figure}")
    return groups


def print_groups(groups: list[list[int]], index: Index, threshold: float) -> None:
    """Print the largest groups."""
    spare = sum(len(group) - 1 for group in groups)
    title = f"{len(groups)} groups with cosine >= {threshold:g}; {spare} {index.plural} are redundant"
    table = Table(index.plural, "files", title=title)
    for group in groups[:SHOWN_PAIRS]:
        table.add_row(str(len(group)), "\n".join(shorten_path(index.files[row]) for row in group[:3]))
    console.print(table)
