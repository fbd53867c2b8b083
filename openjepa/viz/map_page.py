"""Build the interactive page of an embedding map.   S images"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image as Pillow

from openjepa.core.capabilities import Plays
from openjepa.core.errors import UserError
from openjepa.core.names import printable
from openjepa.viz.animation import FRAME_MILLISECONDS
from openjepa.viz.canvas import COLORS, RGBImage
from openjepa.viz.html import encode_data_url, escape, fill_in
from openjepa.viz.inputs import ImageBatch, evenly_spaced

SPRITE_SIDE = 40  # pixels of a thumbnail in the sprite

HOVER_SIDE = 3 * SPRITE_SIDE  # pixels of the image that a point shows

SPRITE_FRAMES = 8  # of a clip

MARKERS = "os^DvPX*<>"  # distinguish classes without color

SYMBOLS = ("circle", "square", "triangle-up", "diamond")  # of plotly, to the same end


class Plane(NamedTuple):
    """Images and their positions on the map."""

    xy: Float[np.ndarray, "S 2"]
    images: ImageBatch
    agreement: (
        float | None
    )  # fraction of an image's 10 nearest neighbors on the map in its folder; None with one folder


class Sprite(NamedTuple):
    """All thumbnails in one picture; of clips, a sheet of thumbnails for each frame, one below the other."""

    source: str  # data: URL
    across: int  # thumbnails in a row
    down: int  # rows of a sheet
    frames: int  # sheets


def thumbnail_sprite(images: ImageBatch) -> Sprite:
    """Draw all thumbnails as one JPEG."""
    across = int(np.ceil(np.sqrt(len(images.view))))
    down, moments = -(-len(images.view) // across), [moments_of(images.data, each) for each in images.view]
    sprite = Pillow.new("RGB", (across * SPRITE_SIDE, len(moments[0]) * down * SPRITE_SIDE))
    for number, pictures in enumerate(moments):
        for frame, picture in enumerate(pictures):
            small = Pillow.fromarray(picture).resize((SPRITE_SIDE, SPRITE_SIDE), Pillow.Resampling.BICUBIC)
            row = frame * down + number // across
            sprite.paste(small, (number % across * SPRITE_SIDE, row * SPRITE_SIDE))
    stream = io.BytesIO()
    sprite.save(stream, "JPEG", quality=80)
    return Sprite(encode_data_url("image/jpeg", stream.getvalue()), across, down, len(moments[0]))


def moments_of(data: Any, view: Any) -> list[RGBImage]:
    """Return the picture of a view; of a clip, up to SPRITE_FRAMES evenly spaced frames."""
    if not isinstance(data, Plays):
        return [data.picture(view)]
    frames = data.play(view)
    return [frames[frame] for frame in evenly_spaced(len(frames), SPRITE_FRAMES)]


def scatter_chart(
    xy: Float[np.ndarray, "S 2"], rows: Sequence[int], names: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
    """Return a plotly chart of the points, a trace for each folder; a point carries its row and its name."""
    traces = []
    for number, label in enumerate(sorted(set(labels))):
        points = [point for point, each in enumerate(labels) if each == label]
        traces.append(
            {
                "type": "scattergl", "mode": "markers", "name": escape(label) or "images",
                "x": xy[points, 0].round(3).tolist(), "y": xy[points, 1].round(3).tolist(), "hoverinfo": "text",
                "customdata": [rows[point] for point in points], 
                "text": [escape(names[point]) for point in points],
                "marker": {"size": 5, "color": COLORS[number % 7], "symbol": SYMBOLS[number % 4]},
            }
        )  # fmt: skip
    clear, axis = "rgba(0,0,0,0)", {"visible": False}
    layout = {
        "xaxis": axis, "yaxis": axis | {"scaleanchor": "x"}, "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "dragmode": "pan", "paper_bgcolor": clear, "plot_bgcolor": clear, "font": {"color": "#808088"},
        "showlegend": len(traces) > 1, "legend": {"orientation": "h"},
    }  # fmt: skip
    config = {"scrollZoom": True, "showTips": False, "displayModeBar": False}
    return {"data": traces, "layout": layout, "config": config}


def interactive_map(plane: Plane) -> str:
    """Return the map as HTML with the script of plotly: wheel and drag move it, a point shows its image."""
    try:
        import plotly.graph_objects as plotly
    except ImportError as error:
        raise UserError("the page of a map needs an extra: pip install 'openjepa[show]', or --no-page") from error
    chart = scatter_chart(plane.xy, range(len(plane.xy)), plane.images.names, plane.images.labels)
    for trace in chart["data"]:
        trace["hoverinfo"] = "none"  # our own box shows the image, and its name as plain text
        trace["text"] = [printable(plane.images.names[row]) for row in trace["customdata"]]
    figure = plotly.Figure(chart["data"], chart["layout"] | {"height": 640})
    body = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        div_id="map-chart",
        default_width="100%",
        config=chart["config"] | {"responsive": True},
    )
    sprite = thumbnail_sprite(plane.images)
    values = {
        "SPRITE": sprite.source, "SIDE": HOVER_SIDE, "WIDTH": HOVER_SIDE * sprite.across, "ACROSS": sprite.across,
        "DOWN": sprite.down, "FRAMES": sprite.frames, "MILLISECONDS": 2 * FRAME_MILLISECONDS,
    }  # fmt: skip
    return body + fill_in(HOVER_BOX, values)


HOVER_BOX = """<div id="map-hover" hidden><i></i><span></span></div>
<style>
#map-hover {
  position: fixed; z-index: 9; padding: .4rem; background: var(--paper); border: 1px solid var(--line);
  pointer-events: none; max-width: 16rem; overflow-wrap: anywhere; font-size: .8rem;
}
#map-hover i {
  display: block; width: @SIDE@px; height: @SIDE@px; background: url(@SPRITE@); background-size: @WIDTH@px;
  image-rendering: auto;
}
</style>
<script>"use strict";
{
  const chart = document.getElementById("map-chart"), box = document.getElementById("map-hover");
  let timer = 0;
  const show = (row, frame) => {
    const x = row % @ACROSS@ * @SIDE@, y = (frame * @DOWN@ + Math.floor(row / @ACROSS@)) * @SIDE@;
    box.querySelector("i").style.backgroundPosition = `-${x}px -${y}px`;
  };
  chart.on("plotly_hover", ({ points: [point], event }) => {
    let frame = 0;
    clearInterval(timer);
    show(point.customdata, frame);
    if (@FRAMES@ > 1) {
      timer = setInterval(() => show(point.customdata, frame = (frame + 1) % @FRAMES@), @MILLISECONDS@);
    }
    box.querySelector("span").textContent = point.text;
    box.style.left = `${Math.min(event.clientX + 14, innerWidth - @SIDE@ - 40)}px`;
    box.style.top = `${Math.min(event.clientY + 14, innerHeight - @SIDE@ - 60)}px`;
    box.hidden = false;
  });
  chart.on("plotly_unhover", () => { box.hidden = true; clearInterval(timer); });
}</script>"""
