"""Apply transforms to images in latent space with the predictor of an image world model.

B images  K actions  N tokens  E width  A parameters of an action
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Real
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Tokens
from openjepa.data.photometric import transform
from openjepa.evaluation.forecast import Scale
from openjepa.evaluation.method_runs import load_run_of
from openjepa.methods.iwm import ImageWorldModel
from openjepa.modalities.image import Image
from openjepa.nn.target_transforms import center
from openjepa.training.device import Device

SCALE_IMAGES = 512  # whose features have mean 0 and variance 1, as in a batch of training


class Imagination(NamedTuple):
    """A run's networks: what the features of an image become under an action, and what they truly are."""

    method: ImageWorldModel
    data: Image
    device: Device
    scale: Scale | None = None  # of the features, if the predictor was trained on standardized ones

    @torch.no_grad()
    def features(self, views: Real[Tensor, "B C H W"]) -> Float[Tensor, "B N E"]:
        """Return the EMA encoder's features of whole views, as the predictor has to match them."""
        config = self.method.config
        with self.device.autocast():
            layers = self.method.target_encoder(self.tokens(views), layers=config.target_layers)
        x = self.method.average_layers(list(layers)).cpu()
        x = center(x) if "center" in config.target_transforms else x
        return x if self.scale is None else self.scale.apply(x)

    @torch.no_grad()
    def imagine(self, views: Real[Tensor, "B C H W"], action: Float[Tensor, "B K A"]) -> Float[Tensor, "B K N E"]:
        """Predict the features of all tokens of each view after each of K actions; the whole view is visible."""
        tokens, (batch, count, _) = self.tokens(views), action.shape
        with self.device.autocast():
            (context,) = self.method.context_encoder(tokens)
            context = context._replace(
                x=context.x.repeat_interleave(count, 0), pos=context.pos.repeat_interleave(count, 0)
            )
            where = context.pos[:, None]
            predicted = self.method.predictor(context, where, action.flatten(0, 1).to(self.device.device))
        return predicted[:, 0].float().cpu().unflatten(0, (batch, count))

    def tokens(self, views: Real[Tensor, "B C H W"]) -> Tokens:
        """Move views to the device and cut them into patches."""
        return self.data.tokens(self.device.move(views))

    def with_scale(self, views: Real[Tensor, "B C H W"], seed: int = 0) -> Imagination:
        """Return the same with the scale of these images, transformed as targets are in training."""
        if "standardize" not in self.method.config.target_transforms:
            return self
        rng = CounterRNG.of(seed, 0, np.arange(len(views)))
        parameters = self.method.config.transforms.draw(rng, "target", destructive=False)
        plain = self._replace(scale=None)
        batches = transform(views, parameters).split(64)
        return self._replace(scale=Scale.of([plain.features(each)[:, None] for each in batches]))


def load_imagination(run: str, device: Device) -> Imagination:
    """Load the networks of a run. Raises UserError if it is not an image world model."""
    settings, method = load_run_of(run, ImageWorldModel, "iwm", "imagines no changes of color")
    assert isinstance(settings.data, Image)
    return Imagination(method.to(device.device), settings.data, device)
