"""The curves of one run or several: what was learnt, and whether it was alive."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from openjepa.log import rows

PANELS = (
    ("loss", "loss"),
    ("relative_loss", "loss / loss of the mean target"),
    ("target_std", "spread of targets"),
    ("invariance", "distance between two views"),
    ("variance", "what deviations lack to 1"),
    ("covariance", "redundancy of features"),
    ("feature_spread", "spread of features over images"),
    ("rankme", "RankMe"),
    ("grad_norm", "gradient norm"),
    ("lr", "learning rate"),
    ("images_per_second", "images per second"),
    ("online_knn", "kNN accuracy on labelled images"),
    ("online_logistic", "logistic accuracy on labelled images"),
)


def draw(runs: list[Path], out: Path) -> Path:
    """A PNG with a panel for each signal and a line for each run."""
    matplotlib.use("agg")
    logs = [(run.name, list(rows(run / "metrics.jsonl"))) for run in runs]
    panels = [panel for panel in PANELS if any(panel[0] in row for _, log in logs for row in log)]
    columns = max(1, math.ceil(len(panels) / 2))
    figure = Figure(figsize=(3.25 * columns, 5.6), layout="constrained")
    for place, (name, title) in enumerate(panels):
        axes = figure.add_subplot(2, columns, place + 1)
        for run, log in logs:
            points = [(row["step"], row[name]) for row in log if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=run, linewidth=1.3)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
    if len(runs) > 1 and figure.axes:
        figure.axes[0].legend(fontsize=8)
    figure.savefig(out, dpi=110)
    return out
