"""Training curves of one run or several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from openjepa.core.arguments import Runs
from openjepa.core.errors import UserError
from openjepa.training.collapse import THRESHOLDS
from openjepa.training.log import read_metrics
from openjepa.viz.canvas import COLORS, INK, CaptionedFigure, plain_axes, save_figure
from openjepa.viz.html import to_svg

DASHES = ("-", "--", ":", "-.")  # lines are told apart without colours, too

PANELS = (
    ("loss", "loss", ""),
    ("relative_loss", "loss / loss of the mean target", "share"),
    ("target_std", "spread of targets", "deviation"),
    ("invariance", "distance between two views", ""),
    ("variance", "what deviations lack to 1", ""),
    ("covariance", "redundancy of features", ""),
    ("feature_spread", "spread of features over images", "share of their size"),
    ("rankme", "RankMe", "directions"),
    ("grad_norm", "gradient norm", ""),
    ("lr", "learning rate", ""),
    ("images_per_second", "images per second", "images / s"),
    ("share_of_ceiling", "speed, share of the matrix rate", "share"),
    ("online_knn", "kNN accuracy on labelled images", "share"),
    ("online_logistic", "logistic accuracy on labelled images", "share"),
)

RunLogs = Sequence[tuple[str, list[dict[str, Any]]]]


@dataclass(frozen=True, kw_only=True)
class CurvesOptions:
    """Draws the log of one run or several: losses, signals of health with their healthy ranges, speed."""

    runs: Runs
    out: Path | None = None  # a .png; by default RUN/figures/curves.png
    page: bool = True  # write a page, too, whose lines are sharp at any size


def curves(settings: CurvesOptions) -> list[CaptionedFigure]:
    """A figure with a panel for each signal. Mistake if a run has no log."""
    logs = load_logs([Path(each) for each in settings.runs])
    names = ", ".join(name for name, _ in logs)
    caption = (
        f"{names}: signals over training. Shaded: where a healthy run lies; below the dashed line the alarm speaks "
        "(docs/health.md)."
    )
    return [CaptionedFigure("curves", "Curves", caption, curves_figure(logs), page=svg_charts(logs))]


def load_logs(runs: Sequence[Path]) -> RunLogs:
    """The rows of each run under its name, or its path where names are the same. Mistake if there are none."""
    if len(set(runs)) < len(runs):
        raise UserError(f"a run is given twice among {' '.join(map(str, runs))}: give each once")
    alike = len({run.name for run in runs}) < len(runs)
    logs = [(str(run) if alike else run.name, read_metrics(run / "metrics.jsonl")) for run in runs]
    for run, (_, log) in zip(runs, logs, strict=True):
        if not log:
            raise UserError(f"{run} has no metrics.jsonl with rows: give the folder of a run that has taken some steps")
    return logs


def draw_curves(runs: list[Path], out: Path) -> Path:
    """A PNG with a panel for each signal and a line for each run."""
    logs = [(run.name, read_metrics(run / "metrics.jsonl")) for run in runs]
    return save_figure(CaptionedFigure("curves", "", "", curves_figure(logs)), out)


def nonempty_panels(logs: RunLogs) -> list[tuple[str, str, str]]:
    """Those of which there is something to draw."""
    return [panel for panel in PANELS if any(panel[0] in row for _, log in logs for row in log)]


def curves_figure(logs: RunLogs) -> Figure:
    found = nonempty_panels(logs)
    columns = max(1, math.ceil(len(found) / 2))
    made = Figure(figsize=(3.25 * columns, 5.6), layout="constrained")
    for place, panel in enumerate(found):
        draw_panel(made.add_subplot(2, columns, place + 1), panel, logs, "black", legend=place == 0)
    return made


def svg_charts(logs: RunLogs) -> str:
    """A chart for each panel, as SVG, for a page."""
    parts = []
    for place, panel in enumerate(nonempty_panels(logs)):
        made = Figure(figsize=(3.6, 2.5), layout="constrained")
        draw_panel(made.add_subplot(), panel, logs, INK, legend=place == 0)
        parts.append(f"<figure>{to_svg(made)}</figure>")
    return f'<div class="charts">{"".join(parts)}</div>'


def draw_panel(axes: Axes, panel: tuple[str, str, str], logs: RunLogs, ink: str, legend: bool) -> None:
    """One signal over steps, a line for each run, with its healthy range."""
    name, title, unit = panel
    for number, (run, log) in enumerate(logs):
        points = [(row["step"], row[name]) for row in log if name in row]
        if points:
            colour, dash = COLORS[(number + 4) % len(COLORS)], DASHES[number // len(COLORS) % len(DASHES)]
            mark = "o" if len(points) == 1 else ""
            axes.plot(*zip(*points, strict=True), label=run, linewidth=1.3, color=colour, linestyle=dash, marker=mark)
            axes.locator_params(axis="x", nbins=4, integer=True)
    axes.set_title(title, fontsize=10, color=ink)
    axes.set_xlabel("step", fontsize=8, color=ink)
    axes.set_ylabel(unit, fontsize=8, color=ink)
    axes.set_ylim(bottom=0)
    limit = next((each for each in THRESHOLDS if each.signal == name), None)
    if limit:
        high = axes.get_ylim()[1]
        if limit.low < high:
            axes.axhspan(limit.low, min(limit.high, high), color=COLORS[2], alpha=0.12, linewidth=0)
        axes.axhline(limit.alarm, color=COLORS[5], linewidth=1, linestyle="--")
        axes.set_ylim(0, high)
    plain_axes(axes, ink)
    if legend and len(logs) > 1:
        axes.legend(fontsize=8, labelcolor=ink, framealpha=0)
