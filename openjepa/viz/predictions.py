"""Draw predictions for hidden patches and their errors.   B images  N patches  T target patches  W patch width"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.capabilities import TubeletGrid, plural_of, require_grid
from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks
from openjepa.evaluation.predictive_runs import load_predictive_method
from openjepa.masking.region import hide_region, index_mask
from openjepa.training.config import Pretrain
from openjepa.viz.board import Board
from openjepa.viz.canvas import CaptionedFigure, draw_tiles, fade
from openjepa.viz.clip_predictions import draw_clip_predictions
from openjepa.viz.inputs import ImageBatch, load_images, with_default_images
from openjepa.viz.prediction_error import (
    ERROR_SCALE,
    PredictionResult,
    color_errors,
    denormalize_pixels,
    gather_patches,
    nearest_patches,
    predict_hidden,
    prediction_caption,
)
from openjepa.viz.settings import PredictionOptions

GALLERY_IMAGES = 256  # images to load; patches of those that are not drawn are the gallery

GALLERY_CLIPS = 24  # the same of clips, which have more tokens


def show_prediction(settings: PredictionOptions) -> list[CaptionedFigure]:
    """Draw one figure with a row for each image. Raises UserError if the run has no predictor."""
    settings = with_default_images(settings)  # type: ignore[assignment]
    if settings.size:
        raise UserError("the predictor works only at the size it was trained at: leave --size out")
    run, method = load_predictive_method(Path(settings.run))
    require_grid(run.data, "jepa show prediction")
    gallery = GALLERY_CLIPS if isinstance(run.data, TubeletGrid) else GALLERY_IMAGES
    images = load_images(settings, run.data, gallery)  # type: ignore[arg-type]
    return [predict_and_draw(method, run, images, settings)]


def prediction_figure(folder: Path, images: ImageBatch) -> CaptionedFigure:
    """Draw the figure for images that are already loaded."""
    run, method = load_predictive_method(folder)
    return predict_and_draw(method, run, images, PredictionOptions(run=str(folder)))


def predict_and_draw(method: Any, run: Pretrain, images: ImageBatch, settings: PredictionOptions) -> CaptionedFigure:
    """Predict the target blocks of all images and draw the first ones; the others are the gallery."""
    mask = prediction_masks(settings, run, images)
    draw = draw_clip_predictions if isinstance(images.data, TubeletGrid) else draw_predictions
    return draw(images, mask, predict_hidden(method, run, images, mask), images.num_shown, run)


def prediction_masks(settings: PredictionOptions, run: Pretrain, images: ImageBatch) -> Masks:
    """Return one mask per image with one target block: the box, or the first block of the run's sampler."""
    layout, count = images.data.layout, len(images.view)
    if settings.box:
        return hide_region(settings.box, layout.shape, count)
    mask = run.masks(layout, None, None, CounterRNG.of(settings.seed, 0, np.arange(count)), 0.0)[0]
    valid = None if mask.target_valid is None else mask.target_valid[:, :1]
    return mask._replace(target=mask.target[:, :1], target_valid=valid)


def draw_predictions(
    images: ImageBatch, mask: Masks, result: PredictionResult, count: int, run: Pretrain
) -> CaptionedFigure:
    """Draw the first `count` images; the target patches of the others are the gallery."""
    tokens = run.data.tokens(images.view)  # type: ignore[union-attr]
    patches = gather_patches(tokens.x, result.target)
    gallery, gallery_pixels = (each[count:][result.valid[count:]] for each in (result.truth, patches))
    board = Board.of(images.data)
    pictures, rows, labels = images.pictures, [], []
    for row in range(count):
        valid = None if mask.context_valid is None else mask.context_valid[row]
        context = index_mask(mask.context[row], valid, images.data.grid[0] * images.data.grid[1])
        real, picture = result.valid[row], pictures[row]
        target = result.target[row][real]
        errors = [each[row][real] for each in result.errors]
        hole = fade(picture, context.reshape(images.data.grid), images.data.patch)
        tiles = [picture, hole, *(draw_error_map(each, target, board) for each in errors)]
        if len(gallery):
            for features in (result.predicted[row], result.truth[row]):
                nearest = gallery_pixels[nearest_patches(features[real], gallery)]
                tiles.append(fill_region(hole, nearest, target, board))
        if result.pixels is not None:
            pixels = denormalize_pixels(result.pixels[row][real], patches[row][real])
            tiles.append(fill_region(hole, pixels, target, board))
        rows.append(tiles)
        ratio = errors[0].mean() / errors[1].mean()
        labels.append(f"{images.titles[row]}\nerror {ratio:.2f} × that\nof the mean")
    columns = [plural_of(images.data)[:-1], "context"]
    columns += ["error: predictor", "error: mean target", "error: nearest context patch"]
    columns += ["predicted features as real patches", "target features as real patches"] if len(gallery) else []
    columns += ["predicted pixels, true mean and contrast"] if result.pixels is not None else []
    caption = prediction_caption(result, images.data, len(gallery))
    return CaptionedFigure(
        "prediction", "Predicted target features", caption, draw_tiles(rows, columns, labels, ERROR_SCALE)
    )


def draw_error_map(errors: Float[Tensor, "T"], target: Int[Tensor, "T"], board: Board) -> np.ndarray:
    """Draw the errors of the target patches at their positions, light gray elsewhere."""
    values = np.full(board.data.layout.count, np.nan)
    values[target.numpy()] = errors.numpy()
    return color_errors(board.arrange(values, np.nan))


def fill_region(hole: np.ndarray, patches: Float[Tensor, "T W"], target: Int[Tensor, "T"], board: Board) -> np.ndarray:
    """Fill the target patches of a picture with other patches."""
    count, patch = board.data.layout.count, board.data.patch
    x = torch.zeros(1, count, patches.shape[-1])
    x[0, target] = patches.float()
    new = board.picture(board.data.unpatchify(x)[0])
    inside = board.arrange(index_mask(target, None, count), False)
    mask = np.kron(inside, np.ones((patch, patch))).astype(bool)[..., None]
    return np.where(mask, new, hole)
