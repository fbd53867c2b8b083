"""How long poles stay up over channels that lose more and more, for each controller."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from openjepa.planning.remote import RemoteRow
from openjepa.viz.canvas import COLORS, CaptionedFigure

LINES = {  # color and dash of each controller
    "the world model imagines": (COLORS[4], "-"),
    "the last command again": (COLORS[5], "-"),
    "no command": (COLORS[0], "-"),
    "exact equations and states": ("#777777", "--"),
}


def channels_figure(rows: Sequence[RemoteRow]) -> CaptionedFigure:
    """Draw a panel for each rate of sending: seconds over lost packets, a line with intervals for each controller."""
    rates = sorted({row.every for row in rows})
    figure = Figure(figsize=(1.5 + 2.6 * len(rates), 3.4), layout="constrained")
    panels = figure.subplots(1, len(rates), sharey=True, squeeze=False)[0]
    for axes, every in zip(panels, rates, strict=True):
        draw_rate(axes, [row for row in rows if row.every == every])
    panels[0].set_ylabel("seconds until the pole falls", fontsize=9)
    panels[0].set_ylim(bottom=0)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    words = "When an observation does not arrive, the controller imagines it, repeats its last command, or gives none."
    return CaptionedFigure("channels", "Control over a lossy channel", words, figure)


def draw_rate(axes: Axes, rows: Sequence[RemoteRow]) -> None:
    """Draw the controllers at one rate of sending."""
    for name, (color, dash) in LINES.items():
        of = [row for row in rows if row.name == name]
        lost = [100 * row.lost for row in of]
        axes.plot(lost, [row.seconds for row in of], dash, color=color, label=name, marker="o", markersize=3)
        axes.fill_between(lost, [row.low for row in of], [row.high for row in of], color=color, alpha=0.2, linewidth=0)
    every, rate = rows[0].every, min(row.latent_bytes for row in rows)
    sent = "all observations" if every == 1 else f"one of {every} observations"
    axes.set_title(f"{sent} sent\n{rate:,.0f} bytes / s", fontsize=9)
    axes.set_xlabel("lost packets, %", fontsize=9)
