"""A folder's pictures on a plane, similar ones close together.   S pictures  D width"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image as Pillow

from openjepa.core.errors import UserError
from openjepa.evaluation.whitening import WHITENING_POWER, Whitening
from openjepa.viz.canvas import COLORS, CaptionedFigure, enlarge
from openjepa.viz.inputs import CHUNK_IMAGES, FigureOptions, figure_data, load_encoder, read_images, with_default_images
from openjepa.viz.map_page import MARKERS, Plane, interactive_map

MAX_IMAGES = 10_000  # pictures on a map

MIN_IMAGES = 10

GRID_CELLS = 15  # thumbnails across the picture


@dataclass(frozen=True, kw_only=True)
class MapOptions(FigureOptions):
    """Draws pictures as points on a plane, by UMAP or t-SNE of their features; in the page a point shows its picture."""

    count: int = 2000  # pictures, evenly taken
    layout: Literal["umap", "tsne"] = "umap"
    seed: int = 0


def embedding_map(settings: MapOptions) -> list[CaptionedFigure]:
    """A figure, and a page to move about in. Mistake with too few pictures, or without the libraries."""
    settings = with_default_images(settings)  # type: ignore[assignment]
    if not MIN_IMAGES <= settings.count <= MAX_IMAGES:
        raise UserError(f"a map has {MIN_IMAGES} to {MAX_IMAGES:,} pictures, not {settings.count:,}: try --count 2000")
    this = load_encoder(settings)
    found = read_images(tuple(settings.images), figure_data(settings, this.data), settings.count)
    if len(found.view) < MIN_IMAGES:
        raise UserError(f"{len(found.view)} pictures make no map: give {MIN_IMAGES} or more")
    with torch.no_grad():
        features = torch.cat([this.encode(view).last for view in found.view.split(CHUNK_IMAGES)]).numpy()
    at = project_features(features, settings.layout, settings.seed)
    return [draw_map(Plane(at, found, neighbor_agreement(at, found.labels)), settings)]


def project_features(features: Float[np.ndarray, "S D"], layout: str, seed: int) -> Float[np.ndarray, "S 2"]:
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


def neighbor_agreement(at: Float[np.ndarray, "S 2"], labels: tuple[str, ...], count: int = 10) -> float | None:
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


def draw_map(plane: Plane, settings: MapOptions) -> CaptionedFigure:
    """Points in the colours of their folders, and some of the pictures where they lie."""
    at, found = plane.at, plane.shown
    classes = [name for name in sorted(set(found.labels)) if name]
    figure = Figure(figsize=(9.6, 8.2), layout="constrained")
    axes = figure.add_subplot()
    for number, name in enumerate(classes or [""]):
        rows = np.array([label == name for label in found.labels])
        axes.scatter(
            *at[rows].T, s=7, marker=MARKERS[number % len(MARKERS)], color=COLORS[number % 7], alpha=0.7, label=name
        )
    for row in non_overlapping(at):
        picture = enlarge(found.data.picture(found.view[row]), 32)
        small = np.asarray(Pillow.fromarray(picture).resize((30, 30)))
        edge = COLORS[classes.index(found.labels[row]) % 7] if classes else "#444444"
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
    return CaptionedFigure("map", "A map of the pictures", caption, figure, page=interactive_map(plane))


def non_overlapping(at: Float[np.ndarray, "S 2"]) -> list[int]:
    """Rows whose thumbnails do not cover one another: in each cell of a grid the point nearest its middle."""
    low, high = np.percentile(at, (0.5, 99.5), axis=0)
    place = (at - low) / np.maximum(high - low, 1e-9) * GRID_CELLS
    cell = np.floor(place)
    far = ((place - cell - 0.5) ** 2).sum(1)
    best: dict[tuple[int, int], int] = {}
    for row in np.argsort(far, kind="stable"):
        best.setdefault((int(cell[row, 0]), int(cell[row, 1])), int(row))
    return list(best.values())
