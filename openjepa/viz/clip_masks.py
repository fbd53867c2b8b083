"""Draw the masks of clips over time.   T time steps  N tubelets"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool

from openjepa.core.registry import name_of
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks
from openjepa.masking.region import index_mask
from openjepa.training.config import Pretrain
from openjepa.viz.animation import Frames, animate_tiles
from openjepa.viz.canvas import COLORS, CaptionedFigure, draw_tiles, fade, outline
from openjepa.viz.clips import by_step, clip_tile, step_frame, step_titles
from openjepa.viz.inputs import ImageBatch


def draw_clip_masks(run: Pretrain, clips: ImageBatch, seed: int = 0) -> CaptionedFigure:
    """Draw each clip as a strip of frames, and below it what each of its masks leaves visible."""
    data = clips.data
    masks = run.masks(data.layout, None, None, CounterRNG.of(seed, 0, np.arange(len(clips.view))), 0.0)
    steps, titles = step_titles(data)
    rows, labels, moving = [], [], []
    for row, view in enumerate(clips.view):
        plain = data.play(view)
        hidden = [hide_tubelets(data, plain, mask, row, COLORS[number]) for number, mask in enumerate(masks)]
        moving.append([plain, *hidden])
        rows += [[each[step_frame(data, step)] for step in steps] for each in moving[-1]]
        visible = [int(visible_tubelets(mask, row, data.layout.count).sum()) for mask in masks]
        labels += [clips.titles[row], *(f"mask {number}: {each}\nvisible" for number, each in enumerate(visible, 1))]
    columns = ["clip", *(f"mask {number}" for number in range(1, len(masks) + 1))]
    caption = (
        f"{len(masks)} mask{'s' * (len(masks) > 1)} of strategy {name_of('masks', run.masks)} for each clip of "
        f"{data.layout.count} tubelets of {data.tubelet} frames × {data.patch} px. Hatched tubelets are hidden from "
        "the context encoder; those with an outline are predicted."
    )
    tile = clip_tile(data)
    figure = draw_tiles(rows, titles, labels, tile=tile)
    return CaptionedFigure(
        "masks", "Context and target masks", caption, figure, frames=animate_tiles(moving, columns, clips.titles, tile)
    )


def hide_tubelets(data: Any, plain: Frames, mask: Masks, row: int, color: str) -> Frames:
    """Hatch the tubelets of a clip that are not in the context, and draw a line around the targets."""
    visible = by_step(data, visible_tubelets(mask, row, data.layout.count))
    valid = None if mask.target_valid is None else mask.target_valid[row]
    target = by_step(data, index_mask(mask.target[row], valid, data.layout.count))
    steps = np.arange(len(plain)) // data.tubelet
    frames = [
        outline(fade(frame, visible[step], data.patch), target[step], data.patch, color)
        for frame, step in zip(plain, steps, strict=True)
    ]
    return np.stack(frames)


def visible_tubelets(mask: Masks, row: int, count: int) -> Bool[np.ndarray, "N"]:
    """Return which tubelets of a clip are in the context."""
    valid = None if mask.context_valid is None else mask.context_valid[row]
    return index_mask(mask.context[row], valid, count)
