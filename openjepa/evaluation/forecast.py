"""Predict the features of coming time steps from those before.

B clips  N tokens  A time steps, T of them hidden  S tokens of a time step  E width  P coordinates
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Real, UInt8
from torch import Tensor

from openjepa.core.capabilities import modality_name
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.core.types import Tokens
from openjepa.masking.causal import past_and_future
from openjepa.methods.jepa import JEPA, MaskedJEPA
from openjepa.methods.masked import EPSILON
from openjepa.modalities.video import Video
from openjepa.nn.positions import grid_positions
from openjepa.nn.target_transforms import center
from openjepa.training.config import is_run_folder, load_config
from openjepa.training.device import Device
from openjepa.training.run_folder import load_method

SCALE_CLIPS = 64  # training clips on which the scale of features is measured

BATCH = 16  # clips of a forward pass


class Forecast(NamedTuple):
    """Features of all time steps of clips, and predictions of the hidden ones."""

    predicted: Float[Tensor, "B T S E"]  # in the space of standardized targets, if targets are standardized
    features: Float[Tensor, "B A S E"]  # of all A time steps: the targets, before they are standardized
    context: Tokens  # the encoded visible tokens, time step by time step


class Forecaster:
    """A run's networks, which predict the future of clips from their first time steps."""

    def __init__(self, method: MaskedJEPA, data: Video, device: Device):
        self.method, self.data, self.device = method.to(device.device), data, device
        self.scale: Scale | None = None  # of features of the training clips

    @property
    def steps(self) -> int:
        """Return the time steps of a clip."""
        return self.data.tubelets[0]

    @property
    def standardizes(self) -> bool:
        """Return whether the predictor was trained on targets of mean 0 and variance 1."""
        return "standardize" in self.method.config.target_transforms

    @torch.no_grad()
    def forecast(self, views: UInt8[Tensor, "B F C H W"], context_steps: int) -> Forecast:
        """Encode the first time steps, and predict all others from them."""
        tokens = self.data.tokens(self.device.move(views))
        masks = past_and_future(self.data.layout, context_steps, len(views))
        with self.device.autocast():
            (context,) = self.method.context_encoder(tokens.take(masks.context.to(tokens.x.device)))
        hidden = tokens.pos[:, masks.context.shape[1] :]
        return Forecast(self.predict(context, hidden), self.target_features(tokens), context)

    def predict(self, context: Tokens, hidden: Float[Tensor, "B Q P"]) -> Float[Tensor, "B T S E"]:
        """Predict the features at the positions of whole time steps from encoded tokens."""
        with self.device.autocast():
            output = self.method.predictor(context, where=hidden[:, None])[:, 0]
        width = self.method.config.target_dim
        return self.split_steps(output[..., :width].float().cpu())

    def target_features(self, tokens: Tokens) -> Float[Tensor, "B A S E"]:
        """Return the EMA encoder's features of whole clips, averaged over the layers that training averages.

        Differs: in training the EMA encoder may see the hidden tokens alone; here it always sees the clip.
        """
        config = self.method.config
        with self.device.autocast():
            layers = self.method.target_encoder(tokens, layers=config.target_layers)
        x = self.method.average_layers(list(layers))
        return self.split_steps((center(x) if "center" in config.target_transforms else x).cpu())

    def positions(self, clips: int) -> Float[Tensor, "B A S P"]:
        """Return the positions of all tokens, by time step."""
        return self.split_steps(grid_positions(*self.data.tubelets).expand(clips, -1, -1))

    def split_steps(self, x: Float[Tensor, "B N E"]) -> Float[Tensor, "B T S E"]:
        """Return tokens by time step."""
        return x.unflatten(1, (-1, math.prod(self.data.tubelets[1:])))


class Scale(NamedTuple):
    """Mean and standard deviation of each feature, which bring targets to mean 0 and variance 1."""

    mean: Float[Tensor, "E"]
    std: Float[Tensor, "E"]

    @classmethod
    def of(cls, features: list[Tensor]) -> Scale:
        """Measure the features (B, A, S, E) of several batches of clips."""
        count = sum(x[..., 0].numel() for x in features)
        mean = torch.stack([x.double().sum((0, 1, 2)) for x in features]).sum(0) / count
        variance = torch.stack([(x.double() - mean).square().sum((0, 1, 2)) for x in features]).sum(0) / count
        return cls(mean.float(), (variance + EPSILON).sqrt().float())

    def apply(self, x: Float[Tensor, "*B E"]) -> Float[Tensor, "*B E"]:
        """Return standardized features."""
        return (x - self.mean) / self.std


def load_forecaster(run: str, data: dict[str, Any], device: Device) -> Forecaster:
    """Load the networks of a run; `data` changes settings of its clips.

    Raises UserError if the run is not a JEPA of video.
    """
    folder = Path(run)
    if not is_run_folder(folder):
        raise UserError(f"{run} is not a run and has no predictor: give the folder of a run")
    config = load_config(folder)
    if not isinstance(config.method, JEPA):
        raise UserError(f"{run} ({type(config.method).__name__}) predicts no features: give a run of a JEPA")
    if not isinstance(config.data, Video):
        raise UserError(f"{run} was trained on {modality_name(config.data)}: the future is predicted of video alone")
    forecaster = Forecaster(load_method(folder, config), change_clips(config.data, data), device)
    if forecaster.steps < 2:
        raise UserError(f"{run} sees one time step at once, which has no future: train with more --data.frames")
    forecaster.scale = training_scale(forecaster, config.data)
    return forecaster


def training_scale(forecaster: Forecaster, data: Video) -> Scale | None:
    """Measure the features of some training clips, in whose units the predictor was trained; None if they are gone."""
    try:
        training = data.dataset(data.listing())
    except UserError as error:
        info(f"scale      that of the clips here, since the training clips are gone ({error})")
        return None
    rows = np.linspace(0, len(training) - 1, min(SCALE_CLIPS, len(training))).round().astype(int).tolist()
    features = [forecaster.forecast(views, 1).features for views in read_views(training, rows)]
    if not features:
        info(f"scale      that of the clips here, since no training clip can be decoded: {' '.join(data.root)}")
    return Scale.of(features) if features else None


def read_views(data: Dataset, rows: list[int]) -> Iterator[Real[Tensor, "B *V"]]:
    """Yield the evaluation views of some samples, without those that cannot be decoded."""
    for part in torch.tensor(rows).split(BATCH):
        samples = data.read(part, None)
        views = samples.views[0][samples.label >= 0] if samples.skipped else samples.views[0]
        if len(views):
            yield views


def change_clips(data: Video, changes: dict[str, Any]) -> Video:
    """Return the modality with the settings that are not empty."""
    return dataclasses.replace(data, **{name: value for name, value in changes.items() if value})


def choose_context(context_steps: int, default: int, steps: int) -> int:
    """Return how many time steps are visible. Raises UserError unless at least one is, and one is hidden."""
    context = context_steps or min(max(default, 1), steps - 1)
    if not 1 <= context < steps:
        raise UserError(f"--context must be 1 to {steps - 1} of the {steps} time steps of a clip, got {context}")
    return context
