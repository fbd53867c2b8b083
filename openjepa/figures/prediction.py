"""`jepa show prediction`: what the predictor expects where it does not see, beside what is there.

B pictures  N patches  T patches asked for  E target width  G patches of the gallery  W numbers in a patch
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Masks
from openjepa.figures.canvas import Plate, Scale, heat, paled, tiled
from openjepa.figures.shown import Asked, Shown, rooted, shown
from openjepa.masking.region import Box, hide_region, index_mask
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.training.config import Pretrain, is_run_folder, load_config
from openjepa.training.run_folder import load_method

GALLERY = 256  # pictures, of which those not shown lend their patches


@dataclass(frozen=True, kw_only=True)
class PredictionOf(Asked):
    """Draws the predictor's error in hidden blocks beside simpler guesses, and the nearest real patch to what it expects."""

    box: Box | None = None  # what is hidden: left, top, right, bottom, as shares from 0 to 1; by default as in training
    seed: int = 0  # of the masks


class Errors(NamedTuple):
    """Mean squared error of each hidden patch's target features, 1 being their variance over all hidden patches."""

    predictor: Float[Tensor, "B T"]
    mean: Float[Tensor, "B T"]  # of guessing their mean
    nearest: Float[Tensor, "B T"]  # of copying the features of the nearest patch that is shown


class Expected(NamedTuple):
    """What was asked for, what is expected there, and what is there."""

    target: Int[Tensor, "B T"]  # which patches
    predicted: Float[Tensor, "B T E"]
    truth: Float[Tensor, "B T E"]
    errors: Errors
    pixels: Float[Tensor, "B T W"] | None  # each patch's numbers as predicted, where the run predicts them


def prediction(settings: PredictionOf) -> list[Plate]:
    """A figure with a row for each picture. Mistake if the run has no predictor."""
    settings = rooted(settings)  # type: ignore[assignment]
    if settings.size:
        raise UserError("a predictor is asked at the size it was trained at: leave --size out")
    run, method = predictive(Path(settings.run))
    found = shown(settings, run.data, GALLERY)  # type: ignore[arg-type]
    return [asked_of(method, run, found, settings)]


def of(folder: Path, found: Shown) -> Plate:
    """The same of pictures that were read already."""
    run, method = predictive(folder)
    return asked_of(method, run, found, PredictionOf(run=str(folder)))


def asked_of(method: Any, run: Pretrain, found: Shown, settings: PredictionOf) -> Plate:
    """The first of the pictures; the others are the gallery."""
    mask = masks_of(settings, run, found)
    return drawn(found, mask, expect(method, run, found, mask), found.first, run)


def predicts(run: Pretrain) -> bool:
    """Whether such a run asks for what it does not see."""
    return type(run.method) in (JEPA, MAE)


def predictive(folder: Path) -> tuple[Pretrain, Any]:
    """A run's settings and all its networks. Mistake if it has no predictor."""
    if not is_run_folder(folder):
        raise UserError(f"{folder} is no run: what a predictor expects is drawn of a run, or of what jepa convert made")
    run = load_config(folder)
    if not predicts(run):
        raise UserError(f"{folder} predicts nothing that is hidden: give a run of a JEPA or of an autoencoder")
    if isinstance(run.method, JEPA):
        run = dataclasses.replace(run, method=dataclasses.replace(run.method, target_every=1))
    return run, load_method(folder, run)


def masks_of(settings: PredictionOf, run: Pretrain, found: Shown) -> Masks:
    """The run's own masks, one of each picture, all that is asked for as one block; or the box, and all else shown."""
    grid, count = found.data.grid, len(found.view)
    if settings.box:
        return hide_region(settings.box, grid, count)
    mask = run.masks.build(grid)(None, None, CounterRNG.of(settings.seed, 0, np.arange(count)), 0.0)[0]
    return mask._replace(target=mask.target[:, :1], target_valid=None)


@torch.no_grad()
def expect(method: Any, run: Pretrain, found: Shown, mask: Masks) -> Expected:
    """Predictions and targets of all pictures at once, since targets may be standardised over what is seen together.

    Targets are as in training. What is copied from the nearest shown patch are targets of whole pictures, since in some
    runs the target encoder is never shown those.
    """
    batch = Batch((found.view,), torch.arange(len(found.view)))
    tokens, target = run.data.tokens(found.view), mask.target[:, 0]  # type: ignore[union-attr]
    (context,) = method.context_encoder(tokens.take(mask.context, mask.context_valid))
    output = method.predictor(context, where=tokens.take(target).pos[:, None])[:, 0].float()
    all_of_it = torch.arange(tokens.x.shape[1]).expand(len(tokens.x), 1, -1)
    truth, whole = (split(method.targets(batch, (each,)).x, run) for each in (mask, mask._replace(target=all_of_it)))
    predicted, there = split(output, run)[0], gathered(truth[0], target)
    copied = gathered(whole[0], nearest(mask, tokens.pos))
    variance = (there - there.mean((0, 1))).square().mean()
    errors = Errors(
        *((guess - there).square().mean(-1) / variance for guess in (predicted, there.mean((0, 1)), copied))
    )
    return Expected(target, predicted, there, errors, split(output, run)[1])


def split(x: Float[Tensor, "B N E"], run: Pretrain) -> tuple[Tensor, Tensor | None]:
    """Features, and pixels if there are any; of an autoencoder pixels are both."""
    if isinstance(run.method, MAE):
        return x, x
    assert isinstance(run.method, JEPA)
    width = run.data.width if run.method.pixels else 0
    return x[..., : x.shape[-1] - width], x[..., x.shape[-1] - width :] if width else None


def gathered(x: Float[Tensor, "B N E"], index: Int[Tensor, "B T"]) -> Float[Tensor, "B T E"]:
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def nearest(mask: Masks, pos: Float[Tensor, "B N P"]) -> Int[Tensor, "B T"]:
    """Of each patch asked for the nearest that is shown, in space."""
    here, there = gathered(pos, mask.target[:, 0]), gathered(pos, mask.context)
    far = torch.cdist(here, there)
    if mask.context_valid is not None:
        far = far.masked_fill(~mask.context_valid[:, None], float("inf"))
    return mask.context.gather(1, far.argmin(-1))


def lookalikes(wanted: Float[Tensor, "T E"], gallery: Float[Tensor, "G E"]) -> Int[Tensor, "T"]:
    """The gallery's patch whose target features are nearest."""
    return torch.cdist(wanted, gallery).argmin(-1)


def drawn(found: Shown, mask: Masks, expected: Expected, count: int, run: Pretrain) -> Plate:
    """The first `count` pictures; the others' hidden patches are the gallery."""
    grid, patch = found.data.grid, found.data.patch
    raw = run.data.tokens(found.view)  # type: ignore[union-attr]
    patches = gathered(raw.x, expected.target)
    gallery, images = expected.truth[count:].flatten(0, 1), patches[count:].flatten(0, 1)
    scale = Scale("error / variance; 2 and more", 0.0, 2.0)
    rows, labels = [], []
    for row in range(count):
        valid = None if mask.context_valid is None else mask.context_valid[row]
        context = index_mask(mask.context[row], valid, grid[0] * grid[1])
        picture = found.pictures[row]
        hole = paled(picture, context.reshape(grid), patch)
        maps = [error_map(each[row], expected.target[row], grid, scale) for each in expected.errors]
        cells = [picture, hole, *maps]
        if len(gallery):
            for features in (expected.predicted[row], expected.truth[row]):
                cells.append(filled(hole, images[lookalikes(features, gallery)], expected.target[row], found))
        if expected.pixels is not None:
            cells.append(filled(hole, coloured(expected.pixels[row], patches[row]), expected.target[row], found))
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
    return Plate("prediction", "What the predictor expects", caption, tiled(rows, columns, labels, scale))


def error_map(errors: Float[Tensor, "T"], target: Int[Tensor, "T"], grid: tuple[int, int], scale: Scale) -> np.ndarray:
    """Errors at their places; white where nothing is asked for."""
    values = np.full(grid[0] * grid[1], np.nan)
    values[target.numpy()] = errors.numpy()
    picture = heat(values.reshape(grid), scale)
    picture[np.isnan(values.reshape(grid))] = 244
    return picture


def filled(hole: np.ndarray, patches: Float[Tensor, "T W"], target: Int[Tensor, "T"], found: Shown) -> np.ndarray:
    """A picture whose hidden patches are these."""
    grid, patch = found.data.grid, found.data.patch
    x = torch.zeros(1, grid[0] * grid[1], patches.shape[-1])
    x[0, target] = patches.float()
    inside = index_mask(target, None, grid[0] * grid[1])
    new = found.data.picture(found.data.pixels(x)[0])
    mask = np.kron(inside.reshape(grid), np.ones((patch, patch))).astype(bool)[..., None]
    return np.where(mask, new, hole)


def coloured(pixels: Float[Tensor, "T W"], truth: Float[Tensor, "T W"]) -> Float[Tensor, "T W"]:
    """Predicted numbers of mean 0 and variance 1 with the true patch's mean and deviation, as MAE's figures have it."""
    return F.layer_norm(pixels, pixels.shape[-1:]) * truth.std(-1, keepdim=True, correction=0) + truth.mean(
        -1, keepdim=True
    )
