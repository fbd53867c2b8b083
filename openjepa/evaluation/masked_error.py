"""Measure how well a run predicts the hidden tokens of single samples.

B samples  K masks  N tokens  M target blocks  T tokens of a block  E width of targets
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.protocols import Dataset
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Masks
from openjepa.evaluation.forecast import Scale, read_views
from openjepa.evaluation.predictive_runs import load_predictive_method
from openjepa.masking.stack import MaskedBatch, stack_masks
from openjepa.methods.jepa import JEPA
from openjepa.training.device import Device

MASKS = 8  # by which each sample is hidden in turn, the same ones for all samples

SCALE_SAMPLES = 256  # on which the scale of targets is measured


class Prediction(NamedTuple):
    """Predicted and true features of the tokens that a mask hides."""

    mask: Masks
    predicted: Float[Tensor, "B M T E"]
    target: Float[Tensor, "B M T E"]
    real: Bool[Tensor, "B M T"]  # False at padding


class MaskedError(NamedTuple):
    """A run's networks, and masks under which they predict the hidden tokens of a sample."""

    method: Any
    data: Any
    device: Device
    masks: tuple[Masks, ...]  # each of one sample
    width: int  # of the features in predictions and targets; predicted pixels follow after them
    scale: Scale | None = None  # of targets, if the predictor was trained on standardized ones

    @torch.no_grad()
    def token_errors(self, view: Any) -> Float[Tensor, "B N"]:
        """Return the squared error of the prediction of each token, mean over the masks that hide it; else NaN."""
        total = torch.zeros(len(view), self.data.layout.count, dtype=torch.float64)
        count = torch.zeros_like(total)
        for mask, predicted, target, valid in self.predictions(view):
            target = target if self.scale is None else self.scale.apply(target)
            error = (predicted - target).square().mean(-1).double()
            index = mask.target.flatten(1)
            total.scatter_add_(1, index, (error * valid).flatten(1))
            count.scatter_add_(1, index, valid.double().flatten(1))
        return (total / count).float()  # 0 / 0 is NaN

    def predictions(self, view: Any) -> Iterator[Prediction]:
        """Predict the hidden tokens of each sample under one mask after the other."""
        view = self.device.move(view)
        tokens, index = self.data.tokens(view), torch.arange(len(view))
        for single in self.masks:
            own = repeat(single, len(view))
            mask = self.device.move(own)
            with self.device.autocast():
                targets = self.method.targets(Batch((view,), index, (mask,)))
                (masked,) = stack_masks(tokens, targets.x, (mask,))
                predicted = self.predict(tokens, masked)
            real = torch.ones(predicted.shape[:3], dtype=torch.bool) if masked.valid is None else masked.valid.cpu()
            predicted, target = (each[..., : self.width].float().cpu() for each in (predicted, masked.targets))
            yield Prediction(own, predicted, target, real)

    def predict(self, tokens: Any, masked: MaskedBatch) -> Float[Tensor, "B M T E"]:
        """Predict the hidden tokens of a mask from its visible ones."""
        (context,) = self.method.context_encoder(tokens, masked.keep)
        return self.method.predictor(context, masked.where, valid=masked.valid, mask_sets=masked.mask_sets)

    @torch.no_grad()
    def with_scale(self, samples: Dataset) -> MaskedError:
        """Return the same with the scale that the targets of these samples have."""
        rows = np.linspace(0, len(samples) - 1, min(SCALE_SAMPLES, len(samples))).round().astype(int).tolist()
        targets = [
            target[real][None, None]
            for view in read_views(samples, rows)
            for _, _, target, real in self.predictions(view)
        ]
        return self._replace(scale=Scale.of(targets)) if targets else self


def repeat(mask: Masks, count: int) -> Masks:
    """Return the mask of one sample for `count` samples."""
    return Masks(*(part if part is None else part.expand(count, *part.shape[1:]) for part in mask))  # type: ignore[arg-type]


def load_masked_error(run: Path, normal: Dataset, device: Device) -> MaskedError:
    """Load the networks of a run; if it trained on standardized targets, their scale is that of normal samples.

    Raises UserError if the run predicts no hidden tokens.
    """
    settings, method = load_predictive_method(run)
    layout, config = settings.data.layout, settings.method
    generators = (CounterRNG.of(0, number, np.array([number])) for number in range(MASKS))
    masks = tuple(settings.masks(layout, None, None, rng, 1.0)[0] for rng in generators)
    if not isinstance(config, JEPA):
        return MaskedError(method.to(device.device), settings.data, device, masks, settings.data.token_dim)
    error = MaskedError(method.to(device.device), settings.data, device, masks, config.target_dim)
    if "standardize" not in config.target_transforms:
        return error
    method.target_transforms = tuple(each for each in config.target_transforms if each != "standardize")
    return error.with_scale(normal)
