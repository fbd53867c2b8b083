"""`jepa show map`: a folder on a plane, pictures that are alike beside one another.   S pictures  D width"""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image as Pillow

from openjepa.core.errors import UserError
from openjepa.evaluation.whitening import WHITENING_POWER, Whitening
from openjepa.figures.canvas import COLOURS, Plate, data_of, enlarged
from openjepa.figures.shown import CHUNK, Asked, Shown, encoder, rooted, seen_as, some

MOST = 10_000  # pictures on a map

FEWEST = 10

CELLS = 15  # thumbnails across the picture

SPRITE = 40  # pixels of a thumbnail in the page

MARKS = "os^DvPX*<>"  # with colours, so that classes are told apart without these


@dataclass(frozen=True, kw_only=True)
class MapOf(Asked):
    """Draws pictures as points on a plane, by UMAP or t-SNE of their features; in the page a point shows its picture."""

    count: int = 2000  # pictures, evenly taken
    layout: Literal["umap", "tsne"] = "umap"
    seed: int = 0


class Plane(NamedTuple):
    """Where each picture lies."""

    at: Float[np.ndarray, "S 2"]
    shown: Shown
    same: float | None  # share of ten neighbours on the plane that lie in the same folder; None without folders


def map(settings: MapOf) -> list[Plate]:
    """A figure, and a page to move about in. Mistake with too few pictures, or without the libraries."""
    settings = rooted(settings)  # type: ignore[assignment]
    if not FEWEST <= settings.count <= MOST:
        raise UserError(f"a map has {FEWEST} to {MOST:,} pictures, not {settings.count:,}: try --count 2000")
    this = encoder(settings)
    found = some(tuple(settings.images), seen_as(settings, this.data), settings.count)
    if len(found.view) < FEWEST:
        raise UserError(f"{len(found.view)} pictures make no map: give {FEWEST} or more")
    with torch.no_grad():
        features = torch.cat([this.see(view).last for view in found.view.split(CHUNK)]).numpy()
    at = laid(features, settings.layout, settings.seed)
    return [drawn(Plane(at, found, agreement(at, found.labels)), settings)]


def laid(features: Float[np.ndarray, "S D"], layout: str, seed: int) -> Float[np.ndarray, "S 2"]:
    """Places on a plane, by the cosine of features whose loud directions are made quieter; the same for the same seed."""
    x: Any = Whitening.of(features, WHITENING_POWER).map(features)
    near = min(15, len(x) - 1)
    try:
        if layout == "umap":
            from umap import UMAP

            made: Any = UMAP(n_neighbors=near, min_dist=0.1, metric="cosine", random_state=seed, n_jobs=1)
        else:
            from sklearn.manifold import TSNE

            made = TSNE(metric="cosine", init="pca", perplexity=min(30, len(x) // 4), random_state=seed, n_jobs=1)
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
    except ImportError as error:
        raise UserError("maps need an extra: pip install 'openjepa[show]'") from error
    return np.asarray(made.fit_transform(x), np.float32)


def agreement(at: Float[np.ndarray, "S 2"], labels: tuple[str, ...], count: int = 10) -> float | None:
    """Of each picture's ten neighbours on the plane the share that lie in its folder."""
    if len(set(labels)) < 2:
        return None
    names, count = np.array(labels), min(count, len(at) - 1)
    same = []
    for first in range(0, len(at), 512):
        far = ((at[first : first + 512, None] - at[None]) ** 2).sum(-1)
        far[np.arange(len(far)), first + np.arange(len(far))] = np.inf
        near = np.argpartition(far, count - 1, axis=1)[:, :count]
        same.append((names[near] == names[first : first + 512, None]).mean(1))
    return float(np.concatenate(same).mean())


def drawn(plane: Plane, settings: MapOf) -> Plate:
    """Points in the colours of their folders, and some of the pictures where they lie."""
    at, found = plane.at, plane.shown
    classes = [name for name in sorted(set(found.labels)) if name]
    figure = Figure(figsize=(9.6, 8.2), layout="constrained")
    axes = figure.add_subplot()
    for number, name in enumerate(classes or [""]):
        rows = np.array([label == name for label in found.labels])
        axes.scatter(
            *at[rows].T, s=7, marker=MARKS[number % len(MARKS)], color=COLOURS[number % 7], alpha=0.7, label=name
        )
    for row in spread_out(at):
        picture = enlarged(found.data.picture(found.view[row]), 32)
        small = np.asarray(Pillow.fromarray(picture).resize((30, 30)))
        edge = COLOURS[classes.index(found.labels[row]) % 7] if classes else "#444444"
        box = AnnotationBbox(
            OffsetImage(small, zoom=0.72), at[row], pad=0.08, bboxprops={"edgecolor": edge, "linewidth": 1.4}
        )
        axes.add_artist(box)
    axes.set_xticks([])
    axes.set_yticks([])
    if 1 < len(classes) <= 20:
        axes.legend(fontsize=8, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    chance = (np.unique(np.array(found.labels), return_counts=True)[1] / len(found.labels)) ** 2
    caption = (
        f"{len(at):,} pictures by {'UMAP' if settings.layout == 'umap' else 't-SNE'} of their features; only who is beside whom has a "
        "meaning, not directions and distances."
        + (
            f" {100 * plane.same:.0f} % of ten neighbours here are of the same folder, {100 * chance.sum():.0f} % would be by chance."
            if plane.same is not None
            else ""
        )
    )
    return Plate("map", "A map of the pictures", caption, figure, page=interactive(plane))


def spread_out(at: Float[np.ndarray, "S 2"]) -> list[int]:
    """Rows whose thumbnails do not cover one another: in each cell of a grid the point nearest its middle."""
    low, high = np.percentile(at, (0.5, 99.5), axis=0)
    place = (at - low) / np.maximum(high - low, 1e-9) * CELLS
    cell = np.floor(place)
    far = ((place - cell - 0.5) ** 2).sum(1)
    best: dict[tuple[int, int], int] = {}
    for row in np.argsort(far, kind="stable"):
        best.setdefault((int(cell[row, 0]), int(cell[row, 1])), int(row))
    return list(best.values())


def sprite(view: UInt8[torch.Tensor, "S C H W"], found: Shown) -> tuple[str, int]:
    """All thumbnails in one JPEG, and how many stand in a row."""
    across = int(np.ceil(np.sqrt(len(view))))
    sheet = Pillow.new("RGB", (across * SPRITE, -(-len(view) // across) * SPRITE))
    for number, each in enumerate(view):
        small = Pillow.fromarray(found.data.picture(each)).resize((SPRITE, SPRITE), Pillow.Resampling.BICUBIC)
        sheet.paste(small, (number % across * SPRITE, number // across * SPRITE))
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=80)
    return data_of("image/jpeg", stream.getvalue()), across


def scattered(
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
                "marker": {"size": 5, "color": COLOURS[number % 7], "symbol": symbol},
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


def interactive(plane: Plane) -> str:
    """The map by plotly, its script in the page: wheel and drag move it, a point shows its picture."""
    try:
        import plotly.graph_objects as plotly
    except ImportError as error:
        raise UserError("the page of a map needs an extra: pip install 'openjepa[show]', or --no-page") from error
    found = plane.shown
    points = scattered(plane.at, range(len(plane.at)), found.names, found.labels)
    for trace in points["data"]:
        trace["hoverinfo"] = "none"  # the page shows the picture
    figure = plotly.Figure(points["data"], points["layout"] | {"height": 640})
    address, across = sprite(found.view, found)
    config = points["config"] | {"responsive": True}
    chart = figure.to_html(
        full_html=False, include_plotlyjs=True, div_id="map-chart", default_width="100%", config=config
    )
    return (
        f'{chart}<div id="map-hover" hidden><i></i><span></span></div>'
        f"<style>#map-hover {{ position: fixed; z-index: 9; padding: .4rem; background: var(--paper); border: 1px solid var(--line); pointer-events: none; max-width: 16rem; overflow-wrap: anywhere; font-size: .8rem; }}"
        f"#map-hover i {{ display: block; width: {3 * SPRITE}px; height: {3 * SPRITE}px; background: url({address}); background-size: {3 * SPRITE * across}px; image-rendering: auto; }}</style>"
        f"<script>{SCRIPT.replace('ACROSS', str(across)).replace('SIDE', str(3 * SPRITE))}</script>"
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
