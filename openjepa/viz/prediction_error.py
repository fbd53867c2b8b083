"""Compare the predictor with baselines on target patches.   B images  N patches  T target patches  E features"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from openjepa.core.capabilities import TubeletGrid, plural_of
from openjepa.core.types import Batch, Masks
from openjepa.evaluation.predictive_runs import split_features_pixels
from openjepa.training.config import Pretrain
from openjepa.viz.canvas import ColorScale, colorize
from openjepa.viz.inputs import ImageBatch

MAX_ERROR = 2.0  # in units of the targets' variance: the brightest color

ERROR_SCALE = ColorScale(f"error / target variance, clipped at {MAX_ERROR:g}", 0.0, MAX_ERROR)


class PredictionErrors(NamedTuple):
    """Mean squared error at each target patch, divided by the variance of target features over all target patches.

    NaN at padding: where samples have fewer target patches than others.
    """

    predictor: Float[Tensor, "B T"]
    mean: Float[Tensor, "B T"]  # of predicting the mean target
    nearest: Float[Tensor, "B T"]  # of copying the features of the nearest context patch


class PredictionResult(NamedTuple):
    """Target patches, their predicted and true features, and the errors."""

    target: Int[Tensor, "B T"]  # patch indices
    predicted: Float[Tensor, "B T E"]
    truth: Float[Tensor, "B T E"]
    errors: PredictionErrors
    pixels: Float[Tensor, "B T W"] | None  # predicted pixels of each patch, if the run predicts them
    valid: Bool[Tensor, "B T"]  # False at padding


@torch.no_grad()
def predict_hidden(
    method: Any, run: Pretrain, images: ImageBatch, mask: Masks, z: Float[Tensor, "Z"] | None = None
) -> PredictionResult:
    """Predict the target patches of all images, given a hidden variable z if the method has one; compute the errors.

    Targets are those of training. All images are one batch, because targets may be standardized over the batch. The
    features copied from the nearest context patch are targets of whole images: in some runs the target encoder does not
    get context patches.
    """
    batch = Batch((images.view,), torch.arange(len(images.view)))
    tokens, target = run.data.tokens(images.view), mask.target[:, 0]  # type: ignore[union-attr]
    (context,) = method.context_encoder(tokens.take(mask.context, mask.context_valid))
    where, valid = tokens.take(target).pos[:, None], mask.target_valid
    given = {} if z is None else {"conditions": z.expand(len(tokens.x), -1)}
    output = method.predictor(context, where=where, valid=valid, **given)[:, 0].float()
    predicted, pixels = split_features_pixels(output, run)
    every_patch = torch.arange(tokens.x.shape[1]).expand(len(tokens.x), 1, -1)
    features, _ = split_features_pixels(method.targets(batch._replace(masks=(mask,))).x, run)
    whole, _ = split_features_pixels(method.targets(batch._replace(masks=(mask._replace(target=every_patch),))).x, run)
    truth = gather_patches(features, target)
    real = torch.ones(target.shape, dtype=torch.bool) if valid is None else valid[:, 0]
    mean = truth[real].mean(0)
    nearest = gather_patches(whole, nearest_context_patch(mask, tokens.pos))
    variance = (truth[real] - mean).square().mean()
    errors = ((guess - truth).square().mean(-1) / variance for guess in (predicted, mean, nearest))
    errors = PredictionErrors(*(each.masked_fill(~real, float("nan")) for each in errors))
    return PredictionResult(target, predicted, truth, errors, pixels, real)


def gather_patches(x: Float[Tensor, "B N E"], index: Int[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
    """Gather the patches of each image by their indices."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def nearest_context_patch(mask: Masks, pos: Float[Tensor, "B N P"]) -> Int[Tensor, "B T"]:
    """Return the index of the context patch nearest in space to each target patch."""
    distance = torch.cdist(gather_patches(pos, mask.target[:, 0]), gather_patches(pos, mask.context))
    if mask.context_valid is not None:
        distance = distance.masked_fill(~mask.context_valid[:, None], float("inf"))
    return mask.context.gather(1, distance.argmin(-1))


def nearest_patches(queries: Float[Tensor, "T E"], gallery: Float[Tensor, "G E"]) -> Int[Tensor, "T"]:
    """Return the index of the gallery patch whose target features are nearest to each query."""
    return torch.cdist(queries, gallery).argmin(-1)


def color_errors(errors: Float[np.ndarray, "*T H W"]) -> UInt8[np.ndarray, "*T H W 3"]:
    """Map errors to colors; light gray elsewhere."""
    flat = errors.reshape(-1, errors.shape[-1])
    picture = colorize(flat, ERROR_SCALE)
    picture[np.isnan(flat)] = 244
    return picture.reshape(*errors.shape, 3)


def denormalize_pixels(pixels: Float[Tensor, "T W"], truth: Float[Tensor, "T W"]) -> Float[Tensor, "T W"]:
    """Give predicted pixels the mean and standard deviation of the true patch, as in the figures of MAE."""
    mean, std = truth.mean(-1, keepdim=True), truth.std(-1, keepdim=True, correction=0)
    return F.layer_norm(pixels, pixels.shape[-1:]) * std + mean


def prediction_caption(result: PredictionResult, data: Any, gallery: int) -> str:
    """State the mean errors and how predictions became patches."""
    predictor, mean, nearest = (float(each.nanmean()) for each in result.errors)
    plural = plural_of(data)
    patch, patches = ("tubelet", "tubelets") if isinstance(data, TubeletGrid) else ("patch", "patches")
    caption = (
        f"Mean squared error of target features, divided by their variance over {len(result.target)} {plural}: "
        f"predictor {predictor:.2f}, mean target {mean:.2f}, features of the nearest context {patch} {nearest:.2f}."
    )
    if gallery:
        caption += (
            f" Real {patches}: of {gallery:,} {patches} of other {plural}, the one whose target features are nearest "
            "to the predicted or to the true features."
        )
    if result.pixels is not None:
        caption += f" Predicted pixels get mean and contrast of the true {patch}."
    return caption
