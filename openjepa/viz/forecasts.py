"""Draw surprise over time, and the error of predictions against how far ahead they lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from openjepa.core.names import shorten
from openjepa.evaluation.horizon import Horizon
from openjepa.evaluation.surprise import Surprise
from openjepa.viz.canvas import COLORS, RGBImage, write_png
from openjepa.viz.text import MAX_NAME

STYLES: Mapping[str, tuple[str, str]] = {  # curve -> color and dashes
    "predictor": (COLORS[4], "-"),
    "roll-out": (COLORS[2], "-"),
    "persistence": (COLORS[5], "--"),
    "mean feature": (COLORS[7], ":"),
}


def draw_surprise(surprise: Surprise, peaks: list[int], frames: list[RGBImage], name: str, out: Path) -> Path:
    """Write a PNG with the frames of the most surprising moments, the score over time, and the errors below it.

    `frames` belong to the first of `peaks`; they are drawn in the order of the file.
    """
    figure = Figure(figsize=(9.0, 6.4), layout="constrained")
    rows = figure.add_gridspec(3, 1, height_ratios=(1.1, 1, 1))
    strip = rows[0].subgridspec(1, max(1, len(frames)))
    for column, rank in enumerate(sorted(range(len(frames)), key=lambda rank: peaks[rank])):
        axes = figure.add_subplot(strip[column])
        axes.imshow(frames[rank])
        axes.set_axis_off()
        axes.set_title(f"{rank + 1}: {surprise.time[peaks[rank]]:.2f} s", fontsize=9)
    upper = figure.add_subplot(rows[1])
    lower = figure.add_subplot(rows[2], sharex=upper)
    upper.plot(surprise.time, surprise.score, color=COLORS[4], linewidth=1.2)
    upper.plot(surprise.time[peaks], surprise.score[peaks], "v", color=COLORS[5], label="most surprising")
    for rank, step in enumerate(peaks):
        upper.annotate(f"{rank + 1}", (surprise.time[step], surprise.score[step]), (5, 3), textcoords="offset points")
    upper.set(ylabel="surprise (deviations\nabove the median)")
    figure.suptitle(shorten(name, 2 * MAX_NAME))
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
