"""Draw the training curves of one run or several."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from openjepa.core.errors import UserError
from openjepa.core.names import distinct_labels, shorten
from openjepa.core.types import Signal
from openjepa.training.config import is_run_folder, load_config
from openjepa.training.log import read_metrics
from openjepa.viz.canvas import COLORS, INK, CaptionedFigure, save_figure, style_axes
from openjepa.viz.html import to_svg
from openjepa.viz.settings import CurvesOptions
from openjepa.viz.text import MAX_NAME, add_legend

DASHES = ("-", "--", ":", "-.")  # distinguish lines without color

PANELS = (  # metric, title, label of the y axis
    ("loss", "loss", ""),
    ("relative_loss", "loss / loss of the mean target", "ratio"),
    ("target_std", "standard deviation of targets", ""),
    ("invariance", "invariance loss (two views)", ""),
    ("variance", "variance loss", ""),
    ("covariance", "covariance loss", ""),
    ("feature_spread", "spread of features over images", "fraction of their norm"),
    ("rankme", "RankMe", "effective rank"),
    ("grad_norm", "gradient norm", ""),
    ("lr", "learning rate", ""),
    ("samples_per_second", "throughput", "samples / s"),
    ("share_of_ceiling", "share of the matmul ceiling", "fraction"),
    ("online_knn", "online kNN accuracy", "fraction"),
    ("online_logistic", "online logistic accuracy", "fraction"),
)

CURVES_CAPTION = "Shaded: range of a healthy run. Dashed line: the collapse alarm fires below it"

RunLogs = Sequence[tuple[str, list[dict[str, Any]]]]

Signals = dict[str, Signal]  # what methods watch for collapse, by the name of the metric


def show_curves(settings: CurvesOptions) -> list[CaptionedFigure]:
    """Draw one figure with a panel for each metric. Raises UserError if a run has no log."""
    runs = [Path(each) for each in settings.runs]
    logs, signals = load_logs(runs), load_signals(runs)
    names = ", ".join(name for name, _ in logs)
    caption = f"Metrics of {names} over training steps. {CURVES_CAPTION} (docs/reference/metrics.md)."
    figure, page = draw_panels(logs, signals), format_charts(logs, signals)
    return [CaptionedFigure("curves", "Training curves", caption, figure, page=page)]


def load_logs(runs: Sequence[Path]) -> RunLogs:
    """Return (name, log rows) of each run; the name is the folder's, with those above it if two share it.

    Raises UserError if a run is given twice or has no log rows.
    """
    names = distinct_labels(runs)
    if len(set(names)) < len(runs):
        raise UserError(f"a run is given twice among {' '.join(map(str, runs))}: give each once")
    logs = [(name, read_metrics(run / "metrics.jsonl")) for name, run in zip(names, runs, strict=True)]
    for run, (_, log) in zip(runs, logs, strict=True):
        if not log:
            raise UserError(
                f"{run} has no metrics.jsonl with rows: give the folder of a run that has logged some steps"
            )
    return logs


def load_signals(runs: Iterable[Path]) -> Signals:
    """Return what the methods of the runs watch for collapse; nothing for a folder that has a log alone."""
    methods = (load_config(run).method for run in runs if is_run_folder(run))
    return {signal.name: signal for method in methods for signal in method.signals()}


def save_curves(runs: list[Path], out: Path) -> Path:
    """Write a PNG with a panel for each metric and a line for each run; return its path."""
    names = distinct_labels(runs)
    logs = [(name, read_metrics(run / "metrics.jsonl")) for name, run in zip(names, runs, strict=True)]
    return save_figure(CaptionedFigure("curves", "", "", draw_panels(logs, load_signals(runs))), out)


def select_panels(logs: RunLogs) -> list[tuple[str, str, str]]:
    """Return the panels whose metric is in at least one log."""
    return [panel for panel in PANELS if any(panel[0] in row for _, log in logs for row in log)]


def draw_panels(logs: RunLogs, signals: Signals) -> Figure:
    """Draw all panels in two rows."""
    panels = select_panels(logs)
    columns = max(1, math.ceil(len(panels) / 2))
    figure = Figure(figsize=(3.25 * columns, 5.6), layout="constrained")
    for number, panel in enumerate(panels):
        draw_panel(figure.add_subplot(2, columns, number + 1), panel, logs, signals, "black", legend=number == 0)
    return figure


def format_charts(logs: RunLogs, signals: Signals) -> str:
    """Return each panel as an SVG chart, as HTML for a page."""
    parts = []
    for number, panel in enumerate(select_panels(logs)):
        figure = Figure(figsize=(3.6, 2.5), layout="constrained")
        draw_panel(figure.add_subplot(), panel, logs, signals, INK, legend=number == 0)
        parts.append(f"<figure>{to_svg(figure)}</figure>")
    return f'<div class="charts">{"".join(parts)}</div>'


def draw_panel(
    axes: Axes, panel: tuple[str, str, str], logs: RunLogs, signals: Signals, ink: str, legend: bool
) -> None:
    """Draw one metric over steps, a line for each run, with its healthy range and alarm threshold."""
    name, title, unit = panel
    lines = {}
    for number, (run, log) in enumerate(logs):
        points = [(row["step"], row[name]) for row in log if name in row]
        if points:
            color, dash = COLORS[(number + 4) % len(COLORS)], DASHES[number // len(COLORS) % len(DASHES)]
            mark = "o" if len(points) == 1 else ""
            x, y = zip(*points, strict=True)
            (lines[run],) = axes.plot(x, y, linewidth=1.3, color=color, linestyle=dash, marker=mark)
            axes.locator_params(axis="x", nbins=4, integer=True)
    axes.set_title(title, fontsize=10, color=ink)
    axes.set_xlabel("step", fontsize=8, color=ink)
    axes.set_ylabel(unit, fontsize=8, color=ink)
    axes.set_ylim(bottom=0)
    draw_threshold(axes, signals.get(name))
    style_axes(axes, ink)
    if legend and len(logs) > 1:
        names = [shorten(run, MAX_NAME) for run in lines]
        add_legend(axes, names, lines.values(), fontsize=8, labelcolor=ink, framealpha=0)


def draw_threshold(axes: Axes, signal: Signal | None) -> None:
    """Shade the healthy range of a metric and draw its alarm threshold, if it has one."""
    if signal is None:
        return
    high = axes.get_ylim()[1]
    if signal.low < high:
        axes.axhspan(signal.low, min(signal.high, high), color=COLORS[2], alpha=0.12, linewidth=0)
    axes.axhline(signal.alarm, color=COLORS[5], linewidth=1, linestyle="--")
    axes.set_ylim(0, high)
