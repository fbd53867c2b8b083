"""Scores with their uncertainty, as a table, Markdown, JSON and a picture.   R test samples  K classes"""

from __future__ import annotations

from pathlib import Path

import matplotlib
from jaxtyping import Int
from matplotlib.figure import Figure
from torch import Tensor

from openjepa.evaluation.scores import Score

READABLE = 30  # classes whose names and counts are still read in a picture


def picture(table: Int[Tensor, "K K"], classes: tuple[str, ...], title: str, out: Path) -> Path:
    """The confusion matrix as PNG, each row as shares of its true class."""
    matplotlib.use("agg")
    share = table / table.sum(1, keepdim=True).clamp(min=1)
    side = min(12.0, 3.0 + 0.45 * len(classes))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    figure.colorbar(
        axes.imshow(share.numpy(), cmap="viridis", vmin=0, vmax=1), ax=axes, label="share of the true class"
    )
    axes.set(title=title, xlabel="taken for", ylabel="true class")
    if len(classes) <= READABLE:
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        for row, column in ((r, c) for r in range(len(classes)) for c in range(len(classes))):
            value = float(share[row, column])
            axes.text(
                column,
                row,
                f"{100 * value:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="black" if value > 0.6 else "white",
            )
    figure.savefig(out, dpi=110)
    return out


def of(score: Score) -> str:
    """By which features or recipe labels were used."""
    return score.chosen.get("kind") or score.chosen.get("recipe", "")


def lines(scores: list[Score]) -> list[tuple[str, str]]:
    """What belongs together in a curve."""
    return list(dict.fromkeys((each.features, of(each)) for each in scores))


def of_labels(score: Score) -> int:
    return score.chosen["labels"]


def curve(scores: list[Score], out: Path) -> Path | None:
    """Accuracy against the number of labels as PNG, with intervals; None where fewer than two numbers were tried."""
    tried = [each for each in scores if "labels" in each.chosen]
    if len({each.chosen["labels"] for each in tried}) < 2:
        return None
    matplotlib.use("agg")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    ways = {of(each) for each in tried}
    for name, way in lines(tried):
        mine = sorted((each for each in tried if (each.features, of(each)) == (name, way)), key=of_labels)
        labels, heights = [of_labels(each) for each in mine], [100 * each.accuracy for each in mine]
        low, high = ([100 * getattr(each, end) for each in mine] for end in ("low", "high"))
        (line,) = axes.plot(labels, heights, marker="o", label=f"{name}, {way}" if len(ways) > 1 else name)
        axes.fill_between(labels, low, high, alpha=0.2, color=line.get_color())
    axes.set(xscale="log", xlabel="labels in all", ylabel="top-1 accuracy, %")
    axes.grid(alpha=0.25)
    axes.legend()
    figure.savefig(out, dpi=110)
    return out
