"""Histograms of the sizes and aspect ratios of a folder's pictures."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from openjepa.core.fileio import atomic_write
from openjepa.data.doctor import FileFacts


def draw_histograms(seen: list[FileFacts], file: Path) -> Path:
    """Two histograms: shorter sides, and how much wider than high."""
    matplotlib.use("agg")
    there = [each for each in seen if each.width]
    figure = Figure(figsize=(8, 3), layout="constrained")
    sides, aspects = figure.subplots(1, 2)
    sides.hist([math.log2(min(each.width, each.height)) for each in there], np.arange(0, 14.5, 0.5), color="tab:blue")
    sides.set_xticks(ticks := range(0, 15, 2), [str(2**tick) for tick in ticks])
    sides.set_xlabel("pixels of the shorter side")
    aspects.hist(
        [max(-2.0, min(2.0, math.log2(each.width / each.height))) for each in there],
        np.linspace(-2, 2, 33),
        color="tab:orange",
    )
    aspects.set_xticks((-2, -1, 0, 1, 2), ("1:4", "1:2", "1:1", "2:1", "4:1"))
    aspects.set_xlabel("width : height")
    for axes in (sides, aspects):
        axes.set_ylabel("files")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return file
