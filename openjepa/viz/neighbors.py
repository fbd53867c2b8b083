"""Draw samples and their nearest neighbors, for a report.   S images  D features  Q queries  K neighbors"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from openjepa.core.capabilities import Plays, Sounds, plural_of
from openjepa.evaluation.nearest import ExactSearch
from openjepa.evaluation.whitening import WHITENING_POWER, Whitening
from openjepa.viz.animation import animate_tiles
from openjepa.viz.canvas import CaptionedFigure, draw_tiles, tile_size
from openjepa.viz.html import escape, moving_data_url
from openjepa.viz.inputs import ImageBatch, evenly_spaced
from openjepa.viz.thumbnails import PageThumbnails, format_tile, still_picture

QUERY_COUNT, NEIGHBOR_COUNT = 4, 6


def nearest_rows(features: Float[np.ndarray, "S D"], queries: list[int], count: int) -> Int[np.ndarray, "Q K"]:
    """Find the nearest other rows by the cosine of whitened features."""
    x = Whitening.of(features, WHITENING_POWER).map(features)
    rows = ExactSearch(x).find(x[queries], count + 1).rows
    return np.stack([row[row != query][:count] for row, query in zip(rows, queries, strict=True)])


def draw_neighbors(images: ImageBatch, features: Float[np.ndarray, "S D"]) -> CaptionedFigure:
    """Draw a row for each of QUERY_COUNT evenly spaced images: the image and its nearest neighbors."""
    queries = evenly_spaced(len(features), QUERY_COUNT)
    near = nearest_rows(features, queries, min(NEIGHBOR_COUNT, len(features) - 1))
    plural, groups = (
        plural_of(images.data),
        [(query, *others) for query, others in zip(queries, near.tolist(), strict=True)],
    )
    rows = [[still_picture(images.data, images.view[row]) for row in group] for group in groups]
    columns = ["query", *(f"neighbor {rank + 1}" for rank in range(near.shape[1]))]
    caption = (
        f"The nearest of {len(features)} {plural} by cosine similarity of whitened features. "
        f"To search all {plural}: jepa embed, then jepa search."
    )
    titles = [images.titles[row] for row in queries]
    figure, page = draw_tiles(rows, columns, titles), ""
    if isinstance(images.data, Plays):
        clips = [[images.data.play(images.view[row]) for row in group] for group in groups]
        frames = animate_tiles(clips, columns, titles, tile_size(rows))
        page = f'<img src="{moving_data_url(frames)}" alt="{escape(caption)}">'
    if isinstance(images.data, Sounds):
        page = format_players(images, groups)
    return CaptionedFigure("neighbors", "Nearest neighbors", caption, figure, page)


def format_players(images: ImageBatch, groups: list[tuple[int, ...]]) -> str:
    """Return a row of pictures with players for each query: first the query, then its nearest neighbors."""
    draw = PageThumbnails(images.data)
    rows = ("".join(format_tile(images.names[row], draw) for row in group) for group in groups)
    return "".join(f'<div class="thumbnails">{row}</div>' for row in rows)
