"""Draw the features of clips over time as colors.   T time steps  N tubelets"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor

from openjepa.viz.animation import Frames, animate_tiles
from openjepa.viz.basis import Basis
from openjepa.viz.canvas import CaptionedFigure, draw_tiles
from openjepa.viz.clips import by_step, clip_tile, in_motion, step_pictures, step_titles
from openjepa.viz.inputs import ImageFeatures


def draw_clip_features(features: ImageFeatures, layer: int) -> CaptionedFigure:
    """Draw each clip as a strip of frames, and below it the colors of its tubelets at those times, one basis for all.

    Colors are comparable over time and between clips: all have the same axes.
    """
    basis, clips = Basis.of(features.x), features.images
    data, count = clips.data, clips.num_shown
    steps, titles = step_titles(data)
    rows, labels, moving = [], [], []
    for row, colors in enumerate(basis.colors(features.x[:count])):
        pictures, painted = step_pictures(data, clips.view[row]), color_steps(data, colors)
        rows += [[each[step] for step in steps] for each in (pictures, painted)]
        labels += [clips.titles[row], f"features of\nblock {layer}" if layer != -1 else "features"]
        moving.append([data.play(clips.view[row]), in_motion(data, enlarge_cells(painted, data.patch))])
    mean = ", mean at each position subtracted" if len(basis.mean) > 1 else ""
    caption = (
        f"First three principal components of tubelet features as red, green and blue, one basis computed over "
        f"{len(features.x)} clips ({100 * basis.share:.0f} % of the variance{mean}). Tubelets of similar color have "
        "similar features, also at different times."
    )
    tile = clip_tile(data)
    figure = draw_tiles(rows, titles, labels, tile=tile)
    frames = animate_tiles(moving, ["clip", "features"], clips.titles[:count], tile)
    return CaptionedFigure("features", "Principal components of tubelet features", caption, figure, frames=frames)


def color_steps(data: Any, colors: Float[Tensor, "N 3"]) -> Frames:
    """Return the colors of a clip's tubelets as a picture for each time step, a pixel per tubelet."""
    return by_step(data, (colors * 255).round().byte().numpy())


def enlarge_cells(
    pictures: Shaped[np.ndarray, "T rows columns V"], factor: int
) -> Shaped[np.ndarray, "T height width V"]:
    """Repeat the cells of pictures by a whole factor."""
    return pictures.repeat(factor, 1).repeat(factor, 2)
