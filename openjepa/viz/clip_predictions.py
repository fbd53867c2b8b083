"""Draw predictions for hidden tubelets of clips and their errors over time.   T targets  N tubelets  W tubelet width"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.types import Masks
from openjepa.masking.region import index_mask
from openjepa.training.config import Pretrain
from openjepa.viz.animation import Frames, animate_tiles
from openjepa.viz.canvas import CaptionedFigure, draw_tiles, fade
from openjepa.viz.clip_features import enlarge_cells
from openjepa.viz.clip_masks import visible_tubelets
from openjepa.viz.clips import by_step, clip_tile, in_motion, step_frame, step_titles
from openjepa.viz.inputs import ImageBatch
from openjepa.viz.prediction_error import (
    ERROR_SCALE,
    PredictionResult,
    color_errors,
    denormalize_pixels,
    gather_patches,
    nearest_patches,
    prediction_caption,
)


def draw_clip_predictions(
    clips: ImageBatch, mask: Masks, result: PredictionResult, count: int, run: Pretrain
) -> CaptionedFigure:
    """Draw the first `count` clips as strips; the target tubelets of the others are the gallery."""
    data = clips.data
    tubelets = gather_patches(data.tokens(clips.view).x, result.target)
    gallery, gallery_tubelets = (each[count:][result.valid[count:]] for each in (result.truth, tubelets))
    steps, titles = step_titles(data)
    rows, labels, moving = [], [], []
    for row in range(count):
        real, plain = result.valid[row], data.play(clips.view[row])
        target = result.target[row][real]
        errors = [each[row][real] for each in result.errors]
        hole = hide(data, plain, visible_tubelets(mask, row, data.layout.count))
        strips = {"clip": plain, "context": hole, "error": draw_errors(data, errors[0], target)}
        if len(gallery):
            for name, features in (("predicted", result.predicted[row]), ("true", result.truth[row])):
                nearest = gallery_tubelets[nearest_patches(features[real], gallery)]
                strips[f"{name} features as real tubelets"] = fill(data, hole, nearest, target)
        if result.pixels is not None:
            pixels = denormalize_pixels(result.pixels[row][real], tubelets[row][real])
            strips["predicted pixels"] = fill(data, hole, pixels, target)
        moving.append(list(strips.values()))
        rows += [[strip[step_frame(data, step)] for step in steps] for strip in moving[-1]]
        ratio = errors[0].mean() / errors[1].mean()
        names = [clips.titles[row], "context", f"error {ratio:.2f} × that\nof the mean", *list(strips)[3:]]
        labels += [each.replace(" as real", "\nas real") for each in names]
    tile = clip_tile(data)
    caption = prediction_caption(result, data, len(gallery))
    figure = draw_tiles(rows, titles, labels, ERROR_SCALE, tile)
    frames = animate_tiles(moving, list(strips), clips.titles[:count], tile)
    return CaptionedFigure("prediction", "Predicted target features", caption, figure, frames=frames)


def hide(data: Any, plain: Frames, visible: np.ndarray) -> Frames:
    """Hatch the tubelets of a clip that are not visible."""
    cells = by_step(data, visible)
    return np.stack([fade(frame, cells[number // data.tubelet], data.patch) for number, frame in enumerate(plain)])


def draw_errors(data: Any, errors: Float[Tensor, "T"], target: Int[Tensor, "T"]) -> Frames:
    """Draw the errors of the target tubelets where and when they are, light gray elsewhere: a picture per frame."""
    values = np.full(data.layout.count, np.nan)
    values[target.numpy()] = errors.numpy()
    return in_motion(data, enlarge_cells(color_errors(by_step(data, values)), data.patch))


def fill(data: Any, hole: Frames, tubelets: Float[Tensor, "T W"], target: Int[Tensor, "T"]) -> Frames:
    """Fill the target tubelets of a clip with other tubelets."""
    x = torch.zeros(1, data.layout.count, tubelets.shape[-1])
    x[0, target] = tubelets.float()
    inside = by_step(data, index_mask(target, None, data.layout.count))
    mask = in_motion(data, enlarge_cells(inside[..., None], data.patch))
    return np.where(mask, data.play(data.unpatchify(x)[0]), hole)
