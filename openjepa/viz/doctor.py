"""Draw histograms of the sizes and aspect ratios of the images or videos in a folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from openjepa.data.doctor import Facts
from openjepa.viz.canvas import write_png


def draw_histograms(facts: Sequence[Facts], file: Path) -> Path:
    """Write a PNG with histograms of the shorter side and of the aspect ratio, both on log scales; return its path."""
    decoded = [each for each in facts if each.width]
    figure = Figure(figsize=(8, 3), layout="constrained")
    sides, aspects = figure.subplots(1, 2)
    sides.hist([math.log2(min(each.width, each.height)) for each in decoded], np.arange(0, 14.5, 0.5), color="tab:blue")
    sides.set_xticks(ticks := range(0, 15, 2), [str(2**tick) for tick in ticks])
    sides.set_xlabel("shorter side, pixels")
    aspects.hist(
        [max(-2.0, min(2.0, math.log2(each.width / each.height))) for each in decoded],
        np.linspace(-2, 2, 33),
        color="tab:orange",
    )
    aspects.set_xticks((-2, -1, 0, 1, 2), ("1:4", "1:2", "1:1", "2:1", "4:1"))
    aspects.set_xlabel("aspect ratio (width : height)")
    for axes in (sides, aspects):
        axes.set_ylabel("files")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    return write_png(figure, file)
