"""Video on small machines."""

from __future__ import annotations

import dataclasses

from openjepa.methods.jepa import JEPA
from openjepa.modalities.video import Video
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.recipes.image_small import tune_for_minutes
from openjepa.training.config import Pretrain


def tune_for_video(data: Video) -> Pretrain:
    """Return the networks, the objective and the masks of small runs on video."""
    method = JEPA(ViTConfig(dim=192, depth=6, num_heads=3), PredictorConfig(dim=96, depth=2))
    config = tune_for_minutes(Pretrain(data), method)
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, lr=2e-3, optimizer="muon"))
