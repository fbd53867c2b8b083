"""Command `jepa duplicates`: group samples that are nearly the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from openjepa.cli.settings import Duplicates
from openjepa.core.console import console, draw_safely, info, warn
from openjepa.core.errors import UserError
from openjepa.core.tables import print_table
from openjepa.evaluation.duplicates import FULL_WHITENING_ROWS, group_pairs, is_calibrated, nearest_pairs, write_groups
from openjepa.evaluation.index import Index, open_index
from openjepa.evaluation.undecodable import report_empty_rows
from openjepa.viz.duplicates import SHOWN_PAIRS, draw_pairs
from openjepa.viz.thumbnails import can_draw, shorten_path

STRICT = 0.9  # threshold above which most pairs are duplicates also in a small index


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
    write_groups(groups, pairs, index, out.with_name(f"{out.name}.csv"))
    print_groups(groups, index, settings.threshold)
    below = int(((pairs.cosine < settings.threshold) & (pairs.cosine >= settings.threshold - 0.1)).sum()) // 2
    if below:
        info(f"about {below} more pairs with --threshold {settings.threshold - 0.1:.2g}")
    info(f"written    {out}.csv")
    pictures, file = can_draw(index.modality, "jepa duplicates"), out.with_name(f"{out.name}.png")
    if draw_safely(f"the figure {file}", lambda: draw_pairs(pairs, settings.threshold, index, file, pictures)):
        info(f"figure     {file}")
    if not is_calibrated(index) and settings.threshold < STRICT:
        enough = FULL_WHITENING_ROWS * index.features.shape[1]
        warn(
            f"with fewer than {enough:,} {index.plural}, cosines are higher than the threshold assumes: look at the "
            "figure and choose --threshold by it, between 0.9 and 0.99"
        )
    return groups


def describe_result(settings: Duplicates, groups: list[list[int]]) -> dict[str, Any]:
    """Return the groups with the file of each row, for --json."""
    index = open_index(settings.index)
    return {"groups": [[{"row": row, "file": index.files[row]} for row in group] for group in groups]}


def print_groups(groups: list[list[int]], index: Index, threshold: float) -> None:
    """Print the largest groups; in a pipe all of them, with all their files."""
    spare = sum(len(group) - 1 for group in groups)
    title = f"{len(groups)} groups with cosine >= {threshold:g}; {spare} {index.plural} are redundant"
    rows = [(str(len(group)), [index.files[row] for row in group]) for group in groups]
    if console.is_terminal:
        rows = [(count, [shorten_path(file) for file in files[:3]]) for count, files in rows[:SHOWN_PAIRS]]
    print_table((index.plural, "files"), rows, title)
