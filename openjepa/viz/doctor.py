"""Draw histograms of what `jepa doctor` learned of all files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from openjepa.data.file_facts import Facts, Histogram
from openjepa.viz.canvas import write_png

COLORS = ("tab:blue", "tab:orange")

BINS = 32  # of a linear scale; of a logarithmic one, two for each factor of 2

TICKS = 8  # at most, on a logarithmic scale


def draw_histograms(facts: Sequence[Facts], file: Path) -> Path:
    """Write a PNG with a histogram of each quantity that the files' kind has; return its path."""
    usable = [each for each in facts if each.is_usable]
    figure = Figure(figsize=(8, 3), layout="constrained")
    histograms = type(facts[0]).histograms(usable)
    for axes, histogram, color in zip(figure.subplots(1, len(histograms)), histograms, COLORS, strict=False):
        draw_histogram(axes, histogram, color)
    return write_png(figure, file)


def draw_histogram(axes: Axes, histogram: Histogram, color: str) -> None:
    """Draw the values of all files."""
    values = [value for value in histogram.values if value > 0 or not histogram.is_log]
    if histogram.is_log and values:
        logs = np.log2(values)
        ticks = histogram.ticks or power_ticks(math.floor(logs.min()), math.floor(logs.max()) + 1)
        low, high = math.log2(ticks[0][0]), math.log2(ticks[-1][0])
        axes.hist(logs, np.arange(low, high + 0.26, 0.5 if high - low > 4 else 0.125).tolist(), color=color)
        axes.set_xticks([math.log2(value) for value, _ in ticks], [name for _, name in ticks])
    elif values:
        axes.hist(values, BINS, color=color)
    axes.set_xlabel(histogram.label)
    axes.set_ylabel("files")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def power_ticks(low: int, high: int) -> list[tuple[float, str]]:
    """Return powers of 2 with their labels, every second or third one where there are many."""
    step = max(1, -(-(high - low) // TICKS))
    return [(2.0**power, f"{2.0**power:g}") for power in range(low, high + step, step)]
