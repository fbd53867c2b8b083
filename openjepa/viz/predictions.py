"""What the predictor predicts for hidden patches, beside the target.   B pictures  N patches  T hidden patches"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Masks
from openjepa.masking.region import Box, hide_region, index_mask
from openjepa.training.config import Pretrain
from openjepa.viz.canvas import CaptionedFigure, ColorScale, fade, heatmap, tile_figure
from openjepa.viz.inputs import FigureOptions, ImageBatch, load_images, with_default_images
from openjepa.viz.prediction_error import (
    PredictionResult,
    gather_patches,
    load_predictive_method,
    nearest_patches,
    predict_hidden,
)

GALLERY_IMAGES = 256  # pictures, of which those not shown lend their patches


@dataclass(frozen=True, kw_only=True)
class PredictionOptions(FigureOptions):
    """Draws the predictor's error in hidden blocks beside simpler guesses, and the nearest real patch to what it expects."""

    box: Box | None = None  # what is hidden: left, top, right, bottom, as shares from 0 to 1; by default as in training
    seed: int = 0  # of the masks


def prediction(settings: PredictionOptions) -> list[CaptionedFigure]:
    """A figure with a row for each picture. Mistake if the run has no predictor."""
    settings = with_default_images(settings)  # type: ignore[assignment]
    if settings.size:
        raise UserError("a predictor is asked at the size it was trained at: leave --size out")
    run, method = load_predictive_method(Path(settings.run))
    found = load_images(settings, run.data, GALLERY_IMAGES)  # type: ignore[arg-type]
    return [predictions_of(method, run, found, settings)]


def prediction_figure(folder: Path, found: ImageBatch) -> CaptionedFigure:
    """The same of pictures that were read already."""
    run, method = load_predictive_method(folder)
    return predictions_of(method, run, found, PredictionOptions(run=str(folder)))


def predictions_of(method: Any, run: Pretrain, found: ImageBatch, settings: PredictionOptions) -> CaptionedFigure:
    """The first of the pictures; the others are the gallery."""
    mask = prediction_masks(settings, run, found)
    return draw_predictions(found, mask, predict_hidden(method, run, found, mask), found.first, run)


def prediction_masks(settings: PredictionOptions, run: Pretrain, found: ImageBatch) -> Masks:
    """The run's own masks, one of each picture, all that is asked for as one block; or the box, and all else shown."""
    grid, count = found.data.grid, len(found.view)
    if settings.box:
        return hide_region(settings.box, grid, count)
    mask = run.masks.build(grid)(None, None, CounterRNG.of(settings.seed, 0, np.arange(count)), 0.0)[0]
    return mask._replace(target=mask.target[:, :1], target_valid=None)


def draw_predictions(
    found: ImageBatch, mask: Masks, expected: PredictionResult, count: int, run: Pretrain
) -> CaptionedFigure:
    """The first `count` pictures; the others' hidden patches are the gallery."""
    grid, patch = found.data.grid, found.data.patch
    raw = run.data.tokens(found.view)  # type: ignore[union-attr]
    patches = gather_patches(raw.x, expected.target)
    gallery, images = expected.truth[count:].flatten(0, 1), patches[count:].flatten(0, 1)
    scale = ColorScale("error / variance; 2 and more", 0.0, 2.0)
    rows, labels = [], []
    for row in range(count):
        valid = None if mask.context_valid is None else mask.context_valid[row]
        context = index_mask(mask.context[row], valid, grid[0] * grid[1])
        picture = found.pictures[row]
        hole = fade(picture, context.reshape(grid), patch)
        maps = [error_map(each[row], expected.target[row], grid, scale) for each in expected.errors]
        cells = [picture, hole, *maps]
        if len(gallery):
            for features in (expected.predicted[row], expected.truth[row]):
                cells.append(fill_region(hole, images[nearest_patches(features, gallery)], expected.target[row], found))
        if expected.pixels is not None:
            cells.append(
                fill_region(hole, denormalize_pixels(expected.pixels[row], patches[row]), expected.target[row], found)
            )
        rows.append(cells)
        ratio = expected.errors.predictor[row].mean() / expected.errors.mean[row].mean()
        labels.append(f"{found.titles[row]}\nerror {ratio:.2f} of\nthe mean's")
    columns = ["picture", "what is shown", "error of the predictor", "error of the mean", "error of the nearest patch"]
    columns += ["what it expects, as real patches", "what is there, as real patches"] if len(gallery) else []
    columns += ["the pixels it expects, mean and contrast given"] if expected.pixels is not None else []
    means = [float(each.mean()) for each in expected.errors]
    caption = (
        f"Error of hidden patches' target features over {len(found.view)} pictures, 1 their variance: predictor {means[0]:.2f}, "
        f"their mean {means[1]:.2f}, a copy of the nearest shown patch {means[2]:.2f}."
        + (
            f" Real patches: of {len(gallery):,} of other pictures, the one whose features are nearest."
            if len(gallery)
            else ""
        )
        + (" Pixels have the true patch's mean and contrast." if expected.pixels is not None else "")
    )
    return CaptionedFigure(
        "prediction", "What the predictor expects", caption, tile_figure(rows, columns, labels, scale)
    )


def error_map(
    errors: Float[Tensor, "T"], target: Int[Tensor, "T"], grid: tuple[int, int], scale: ColorScale
) -> np.ndarray:
    """Errors at their places; white where nothing is asked for."""
    values = np.full(grid[0] * grid[1], np.nan)
    values[target.numpy()] = errors.numpy()
    picture = heatmap(values.reshape(grid), scale)
    picture[np.isnan(values.reshape(grid))] = 244
    return picture


def fill_region(
    hole: np.ndarray, patches: Float[Tensor, "T W"], target: Int[Tensor, "T"], found: ImageBatch
) -> np.ndarray:
    """A picture whose hidden patches are these."""
    grid, patch = found.data.grid, found.data.patch
    x = torch.zeros(1, grid[0] * grid[1], patches.shape[-1])
    x[0, target] = patches.float()
    inside = index_mask(target, None, grid[0] * grid[1])
    new = found.data.picture(found.data.unpatchify(x)[0])
    mask = np.kron(inside.reshape(grid), np.ones((patch, patch))).astype(bool)[..., None]
    return np.where(mask, new, hole)


def denormalize_pixels(pixels: Float[Tensor, "T W"], truth: Float[Tensor, "T W"]) -> Float[Tensor, "T W"]:
    """Predicted numbers of mean 0 and variance 1 with the true patch's mean and deviation, as MAE's figures have it."""
    return F.layer_norm(pixels, pixels.shape[-1:]) * truth.std(-1, keepdim=True, correction=0) + truth.mean(
        -1, keepdim=True
    )
