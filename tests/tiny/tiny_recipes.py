"""Recipes: one run, and two stages; the second stage learns from the frozen encoder of the first."""

from __future__ import annotations

from openjepa.core.registry import find
from openjepa.masking.random import Random
from openjepa.methods.mae import MAE
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim
from openjepa.training.stages import Stages

OPTIM = Optim(lr=3e-3, start_lr=3e-3, warmup=0.0)


def tiny_points() -> Pretrain:
    """Points with masks of nearest points.

    Command: jepa pretrain tiny-points --plugin tests/tiny/points.py tests/tiny/nearest.py tests/tiny/tiny_recipes.py
    """
    method = MAE(ViTConfig(dim=48, depth=2, num_heads=2), PredictorConfig(dim=24, depth=1))
    return Pretrain(find("modality", "points")(), method, find("masks", "nearest")(), OPTIM, steps=24, batch_size=16)


def second_then_first() -> Stages:
    """Train an encoder of the second sensor, then distill it into one of the first."""
    pair = find("modality", "two-sensors")
    method = MAE(ViTConfig(dim=48, depth=2, num_heads=2), PredictorConfig(dim=24, depth=1))
    first = Pretrain(pair(second=True), method, Random(0.5), OPTIM, steps=6, batch_size=16)
    student = find("method", "from-teacher")(teacher="stage-1")
    return Stages((first, Pretrain(pair(), student, Random(0.5), OPTIM, steps=6, batch_size=16)))
