"""Draw the images of a folder on a plane, similar ones close together (UMAP or t-SNE).   S images  D width"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image as Pillow

from openjepa.core.capabilities import plural_of
from openjepa.core.errors import UserError
from openjepa.core.names import shorten
from openjepa.evaluation.whitening import WHITENING_POWER, Whitening
from openjepa.viz.canvas import COLORS, CaptionedFigure, enlarge
from openjepa.viz.inputs import figure_data, load_encoder, read_images, with_default_images
from openjepa.viz.map_page import MARKERS, Plane, interactive_map
from openjepa.viz.settings import MapOptions
from openjepa.viz.text import MAX_NAME, add_legend
from openjepa.viz.thumbnails import still_picture

MAX_IMAGES = 10_000  # images on a map

MIN_IMAGES = 10

GRID_CELLS = 15  # thumbnails across the map


def show_map(settings: MapOptions) -> list[CaptionedFigure]:
    """Draw a figure and an interactive page. Raises UserError with too few images or without the libraries."""
    settings = with_default_images(settings)  # type: ignore[assignment]
    if not MIN_IMAGES <= settings.count <= MAX_IMAGES:
        raise UserError(f"--count must be {MIN_IMAGES} to {MAX_IMAGES:,}, got {settings.count:,}: try --count 2000")
    encoder = load_encoder(settings)
    images = read_images(tuple(settings.images), figure_data(settings, encoder.data), settings.count)
    if len(images.view) < MIN_IMAGES:
        raise UserError(f"a map needs at least {MIN_IMAGES} {plural_of(images.data)}, got {len(images.view)}")
    xy = project_features(encoder.pooled(images.view).numpy(), settings.layout, settings.seed)
    return [draw_map(Plane(xy, images, neighbor_agreement(xy, images.labels)), settings)]


def project_features(features: Float[np.ndarray, "S D"], layout: str, seed: int) -> Float[np.ndarray, "S 2"]:
    """Project features to a plane by the cosine distance of whitened features; the same seed gives the same map."""
    x: Any = Whitening.of(features, WHITENING_POWER).map(features)
    near = min(15, len(x) - 1)
    try:
        if layout == "umap":
            from umap import UMAP

            reducer: Any = UMAP(n_neighbors=near, min_dist=0.1, metric="cosine", random_state=seed, n_jobs=1)
        else:
            from sklearn.manifold import TSNE

            reducer = TSNE(metric="cosine", init="pca", perplexity=min(30, len(x) // 4), random_state=seed, n_jobs=1)
            x = x / np.linalg.norm(x, axis=1, keepdims=True)
    except ImportError as error:
        raise UserError("jepa show map needs an extra: pip install 'openjepa[show]'") from error
    return np.asarray(reducer.fit_transform(x), np.float32)


def neighbor_agreement(xy: Float[np.ndarray, "S 2"], labels: tuple[str, ...], count: int = 10) -> float | None:
    """Return the mean fraction of an image's nearest neighbors on the map in its folder; None with one folder."""
    if len(set(labels)) < 2:
        return None
    names, count = np.array(labels), min(count, len(xy) - 1)
    same = []
    for first in range(0, len(xy), 512):
        distance = ((xy[first : first + 512, None] - xy[None]) ** 2).sum(-1)
        distance[np.arange(len(distance)), first + np.arange(len(distance))] = np.inf
        near = np.argpartition(distance, count - 1, axis=1)[:, :count]
        same.append((names[near] == names[first : first + 512, None]).mean(1))
    return float(np.concatenate(same).mean())


def draw_map(plane: Plane, settings: MapOptions) -> CaptionedFigure:
    """Draw points in the colors of their folders, and thumbnails of some of the images at their points."""
    labels = plane.images.labels
    classes = [name for name in sorted(set(labels)) if name]
    figure = Figure(figsize=(9.6, 8.2), layout="constrained")
    axes = figure.add_subplot()
    handles = []
    for number, name in enumerate(classes or [""]):
        x, y = plane.xy[np.array([label == name for label in labels])].T
        marker, color = MARKERS[number % len(MARKERS)], COLORS[number % 7]
        handles.append(axes.scatter(x, y, s=7, marker=marker, color=color, alpha=0.7))
    draw_thumbnails(axes, plane, classes)
    axes.set_xticks([])
    axes.set_yticks([])
    if 1 < len(classes) <= 20:
        add_legend(
            axes, [shorten(name, MAX_NAME) for name in classes], handles,
            fontsize=8, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False,
        )  # fmt: skip
    method = "UMAP" if settings.layout == "umap" else "t-SNE"
    plural = plural_of(plane.images.data)
    caption = (
        f"{len(labels):,} {plural} by {method} of their features. Only neighborhoods have a meaning, not distances."
    )
    if plane.agreement is not None:
        chance = (np.unique(np.array(labels), return_counts=True)[1] / len(labels)) ** 2
        caption += (
            f" {100 * plane.agreement:.0f} % of the 10 nearest neighbors on the map are in the same folder; "
            f"{100 * chance.sum():.0f} % would be by chance."
        )
    return CaptionedFigure("map", f"Map of the {plural}", caption, figure, page=interactive_map(plane))


def draw_thumbnails(axes: Axes, plane: Plane, classes: list[str]) -> None:
    """Draw thumbnails that do not overlap, framed in the colors of their folders."""
    for row in non_overlapping(plane.xy):
        picture = enlarge(still_picture(plane.images.data, plane.images.view[row]), 32)
        small = OffsetImage(np.asarray(Pillow.fromarray(picture).resize((30, 30))), zoom=0.72)
        edge = COLORS[classes.index(plane.images.labels[row]) % 7] if classes else "#444444"
        frame = {"edgecolor": edge, "linewidth": 1.4}
        axes.add_artist(AnnotationBbox(small, plane.xy[row], pad=0.08, bboxprops=frame))


def non_overlapping(xy: Float[np.ndarray, "S 2"]) -> list[int]:
    """Choose rows whose thumbnails do not overlap: in each cell of a grid the point nearest its center."""
    low, high = np.percentile(xy, (0.5, 99.5), axis=0)
    cells = (xy - low) / np.maximum(high - low, 1e-9) * GRID_CELLS
    cell = np.floor(cells)
    distance = ((cells - cell - 0.5) ** 2).sum(1)
    best: dict[tuple[int, int], int] = {}
    for row in np.argsort(distance, kind="stable"):
        best.setdefault((int(cell[row, 0]), int(cell[row, 1])), int(row))
    return list(best.values())
