"""The interactive page of an embedding map."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image as Pillow

from openjepa.core.errors import UserError
from openjepa.viz.canvas import COLORS
from openjepa.viz.html import data_url
from openjepa.viz.inputs import ImageBatch

SPRITE_SIDE = 40  # pixels of a thumbnail in the page

MARKERS = "os^DvPX*<>"  # with colours, so that classes are told apart without these


class Plane(NamedTuple):
    """Where each picture lies."""

    at: Float[np.ndarray, "S 2"]
    shown: ImageBatch
    same: float | None  # share of ten neighbours on the plane that lie in the same folder; None without folders


def thumbnail_sprite(view: UInt8[torch.Tensor, "S C H W"], found: ImageBatch) -> tuple[str, int]:
    """All thumbnails in one JPEG, and how many stand in a row."""
    across = int(np.ceil(np.sqrt(len(view))))
    sheet = Pillow.new("RGB", (across * SPRITE_SIDE, -(-len(view) // across) * SPRITE_SIDE))
    for number, each in enumerate(view):
        small = Pillow.fromarray(found.data.picture(each)).resize((SPRITE_SIDE, SPRITE_SIDE), Pillow.Resampling.BICUBIC)
        sheet.paste(small, (number % across * SPRITE_SIDE, number // across * SPRITE_SIDE))
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=80)
    return data_url("image/jpeg", stream.getvalue()), across


def scatter_traces(
    at: Float[np.ndarray, "S 2"], rows: Sequence[int], names: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
    """Points in the colours and marks of their folders, as plotly has them; each bears its row, and its name."""
    traces = []
    for number, label in enumerate(sorted(set(labels))):
        mine = [place for place, each in enumerate(labels) if each == label]
        symbol = ("circle", "square", "triangle-up", "diamond")[number % 4]
        traces.append(
            {
                "type": "scattergl", "mode": "markers", "name": html.escape(label) or "pictures",
                "x": at[mine, 0].round(3).tolist(), "y": at[mine, 1].round(3).tolist(), "hoverinfo": "text",
                "customdata": [rows[place] for place in mine], "text": [html.escape(names[place]) for place in mine],
                "marker": {"size": 5, "color": COLORS[number % 7], "symbol": symbol},
            }
        )  # fmt: skip
    clear, axis = "rgba(0,0,0,0)", {"visible": False}
    layout = {
        "xaxis": axis, "yaxis": axis | {"scaleanchor": "x"}, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}, "dragmode": "pan",
        "paper_bgcolor": clear, "plot_bgcolor": clear, "font": {"color": "#808088"}, "showlegend": len(traces) > 1,
        "legend": {"orientation": "h"},
    }  # fmt: skip
    return {
        "data": traces,
        "layout": layout,
        "config": {"scrollZoom": True, "showTips": False, "displayModeBar": False},
    }


def interactive_map(plane: Plane) -> str:
    """The map by plotly, its script in the page: wheel and drag move it, a point shows its picture."""
    try:
        import plotly.graph_objects as plotly
    except ImportError as error:
        raise UserError("the page of a map needs an extra: pip install 'openjepa[show]', or --no-page") from error
    found = plane.shown
    points = scatter_traces(plane.at, range(len(plane.at)), found.names, found.labels)
    for trace in points["data"]:
        trace["hoverinfo"] = "none"  # the page shows the picture
    figure = plotly.Figure(points["data"], points["layout"] | {"height": 640})
    address, across = thumbnail_sprite(found.view, found)
    config = points["config"] | {"responsive": True}
    chart = figure.to_html(
        full_html=False, include_plotlyjs=True, div_id="map-chart", default_width="100%", config=config
    )
    return (
        f'{chart}<div id="map-hover" hidden><i></i><span></span></div>'
        f"<style>#map-hover {{ position: fixed; z-index: 9; padding: .4rem; background: var(--paper); border: 1px solid var(--line); pointer-events: none; max-width: 16rem; overflow-wrap: anywhere; font-size: .8rem; }}"
        f"#map-hover i {{ display: block; width: {3 * SPRITE_SIDE}px; height: {3 * SPRITE_SIDE}px; background: url({address}); background-size: {3 * SPRITE_SIDE * across}px; image-rendering: auto; }}</style>"
        f"<script>{SCRIPT.replace('ACROSS', str(across)).replace('SIDE', str(3 * SPRITE_SIDE))}</script>"
    )


SCRIPT = """"use strict";
{
  const chart = document.getElementById("map-chart"), box = document.getElementById("map-hover");
  chart.on("plotly_hover", ({ points: [point], event }) => {
    const row = point.customdata;
    box.querySelector("i").style.backgroundPosition = `-${row % ACROSS * SIDE}px -${Math.floor(row / ACROSS) * SIDE}px`;
    box.querySelector("span").textContent = point.text;
    box.style.left = `${Math.min(event.clientX + 14, innerWidth - SIDE - 40)}px`;
    box.style.top = `${Math.min(event.clientY + 14, innerHeight - SIDE - 60)}px`;
    box.hidden = false;
  });
  chart.on("plotly_unhover", () => { box.hidden = true; });
}"""
