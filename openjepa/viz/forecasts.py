"""Draw surprise over time, and the error of predictions against how far ahead they lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from openjepa.core.names import shorten
from openjepa.evaluation.horizon import Horizon
from openjepa.evaluation.surprise import Surprise
from openjepa.viz.canvas import COLORS, write_png
from openjepa.viz.text import MAX_NAME

STYLES: Mapping[str, tuple[str, str]] = {  # curve -> color and dashes
    "predictor": (COLORS[4], "-"),
    "roll-out": (COLORS[2], "-"),
    "persistence": (COLORS[5], "--"),
    "mean feature": (COLORS[7], ":"),
}


def draw_surprise(surprise: Surprise, peaks: list[int], name: str, out: Path) -> Path:
    """Write a PNG with the score over time, the most surprising moments marked, and the errors below it."""
    figure = Figure(figsize=(9.0, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(surprise.time, surprise.score, color=COLORS[4], linewidth=1.2)
    upper.plot(surprise.time[peaks], surprise.score[peaks], "v", color=COLORS[5], label="most surprising")
    upper.set(ylabel="surprise (deviations\nabove the median)", title=shorten(name, 2 * MAX_NAME))
    curves = {"predictor": surprise.error, "persistence": surprise.persistence}
    draw_curves(lower, surprise.time.tolist(), {key: values.tolist() for key, values in curves.items()})
    lower.set(xlabel="seconds", ylabel="error / variance of features")
    upper.legend(loc="best", fontsize=8)
    upper.grid(alpha=0.25)
    return write_png(figure, out)


def draw_horizon(horizon: Horizon, name: str, out: Path) -> Path:
    """Write a PNG with the error of each hidden time step; 1 is the variance of features over all clips."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    curves = {
        "predictor": horizon.predictor,
        "roll-out": horizon.roll_out,
        "persistence": horizon.persistence,
        "mean feature": horizon.mean,
    }
    draw_curves(axes, horizon.ahead, curves)
    title = f"{shorten(name, MAX_NAME)}: time steps visible: {horizon.context}; {horizon.clips} clips"
    axes.set(xlabel=f"ahead, {horizon.unit}", ylabel="error / variance of features", title=title)
    axes.set_ylim(0, 1.35 * max(max(each) for each in curves.values()))  # room for the legend
    return write_png(figure, out)


def draw_curves(axes: Axes, x: list[float], curves: dict[str, list[float]]) -> None:
    """Draw curves that differ in color and dashes, with a legend."""
    for name, values in curves.items():
        color, dashes = STYLES[name]
        axes.plot(x, values, dashes, color=color, linewidth=1.3, label=name, marker="o" if len(x) < 20 else "")
    axes.legend(loc="upper left", fontsize=8, ncols=2)
    axes.grid(alpha=0.25)
