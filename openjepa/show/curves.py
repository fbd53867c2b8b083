"""The curves of one run or several: what was learnt, and whether it was alive."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from openjepa.log import rows

PANELS = (
    ("loss", "loss"),
    ("relative_loss", "loss / loss of the mean target"),
    ("target_std", "spread of targets"),
    ("feature_spread", "spread of features over images"),
    ("rankme", "RankMe"),
    ("grad_norm", "gradient norm"),
    ("lr", "learning rate"),
    ("images_per_second", "images per second"),
)


def draw(runs: list[Path], out: Path) -> Path:
    """A PNG with a panel for each signal and a line for each run."""
    matplotlib.use("agg")
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    for place, (name, title) in enumerate(PANELS):
        axes = figure.add_subplot(2, 4, place + 1)
        for run in runs:
            points = [(row["step"], row[name]) for row in rows(run / "metrics.jsonl") if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=run.name, linewidth=1.3)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
    if len(runs) > 1:
        figure.axes[0].legend(fontsize=8)
    figure.savefig(out, dpi=110)
    return out
