"""Compare the predictor with simple baselines on hidden patches.   B pictures  N patches  T hidden patches"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.types import Batch, Masks
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.training.config import Pretrain, is_run_folder, load_config
from openjepa.training.run_folder import load_method
from openjepa.viz.inputs import ImageBatch


class PredictionErrors(NamedTuple):
    """Mean squared error of each hidden patch's target features, 1 being their variance over all hidden patches."""

    predictor: Float[Tensor, "B T"]
    mean: Float[Tensor, "B T"]  # of guessing their mean
    nearest: Float[Tensor, "B T"]  # of copying the features of the nearest patch that is shown


class PredictionResult(NamedTuple):
    """What was asked for, what is expected there, and what is there."""

    target: Int[Tensor, "B T"]  # which patches
    predicted: Float[Tensor, "B T E"]
    truth: Float[Tensor, "B T E"]
    errors: PredictionErrors
    pixels: Float[Tensor, "B T W"] | None  # each patch's numbers as predicted, where the run predicts them


def has_predictor(run: Pretrain) -> bool:
    """Whether such a run asks for what it does not see."""
    return type(run.method) in (JEPA, MAE)


def load_predictive_method(folder: Path) -> tuple[Pretrain, Any]:
    """A run's settings and all its networks. Mistake if it has no predictor."""
    if not is_run_folder(folder):
        raise UserError(f"{folder} is no run: what a predictor expects is drawn of a run, or of what jepa convert made")
    run = load_config(folder)
    if not has_predictor(run):
        raise UserError(f"{folder} predicts nothing that is hidden: give a run of a JEPA or of an autoencoder")
    if isinstance(run.method, JEPA):
        run = dataclasses.replace(run, method=dataclasses.replace(run.method, target_stride=1))
    return run, load_method(folder, run)


@torch.no_grad()
def predict_hidden(method: Any, run: Pretrain, found: ImageBatch, mask: Masks) -> PredictionResult:
    """Predictions and targets of all pictures at once, since targets may be standardised over what is seen together.

    Targets are as in training. What is copied from the nearest shown patch are targets of whole pictures, since in some
    runs the target encoder is never shown those.
    """
    batch = Batch((found.view,), torch.arange(len(found.view)))
    tokens, target = run.data.tokens(found.view), mask.target[:, 0]  # type: ignore[union-attr]
    (context,) = method.context_encoder(tokens.take(mask.context, mask.context_valid))
    output = method.predictor(context, where=tokens.take(target).pos[:, None])[:, 0].float()
    all_of_it = torch.arange(tokens.x.shape[1]).expand(len(tokens.x), 1, -1)
    truth, whole = (
        split_features_pixels(method.targets(batch, (each,)).x, run) for each in (mask, mask._replace(target=all_of_it))
    )
    predicted, there = split_features_pixels(output, run)[0], gather_patches(truth[0], target)
    copied = gather_patches(whole[0], nearest_context_patch(mask, tokens.pos))
    variance = (there - there.mean((0, 1))).square().mean()
    errors = PredictionErrors(
        *((guess - there).square().mean(-1) / variance for guess in (predicted, there.mean((0, 1)), copied))
    )
    return PredictionResult(target, predicted, there, errors, split_features_pixels(output, run)[1])


def split_features_pixels(x: Float[Tensor, "B N E"], run: Pretrain) -> tuple[Tensor, Tensor | None]:
    """Features, and pixels if there are any; of an autoencoder pixels are both."""
    if isinstance(run.method, MAE):
        return x, x
    assert isinstance(run.method, JEPA)
    width = run.data.token_dim if run.method.pixel_loss_weight else 0
    return x[..., : x.shape[-1] - width], x[..., x.shape[-1] - width :] if width else None


def gather_patches(x: Float[Tensor, "B N E"], index: Int[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def nearest_context_patch(mask: Masks, pos: Float[Tensor, "B N P"]) -> Int[Tensor, "B T"]:
    """Of each patch asked for the nearest that is shown, in space."""
    here, there = gather_patches(pos, mask.target[:, 0]), gather_patches(pos, mask.context)
    far = torch.cdist(here, there)
    if mask.context_valid is not None:
        far = far.masked_fill(~mask.context_valid[:, None], float("inf"))
    return mask.context.gather(1, far.argmin(-1))


def nearest_patches(wanted: Float[Tensor, "T E"], gallery: Float[Tensor, "G E"]) -> Int[Tensor, "T"]:
    """The gallery's patch whose target features are nearest."""
    return torch.cdist(wanted, gallery).argmin(-1)
