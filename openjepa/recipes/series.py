"""Recipes for time series on small machines."""

from __future__ import annotations

import dataclasses

from openjepa.methods.jepa import JEPA
from openjepa.modalities.series import Series
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.recipes.image_small import tune_for_minutes
from openjepa.training.config import Pretrain


def series_small() -> Pretrain:
    """Two weeks of hourly measurements on one core: 7 channels, tokens of 12 hours, ViT of width 128 and depth 4.

    The objective and the masks of `cifar10-minutes`: three of four tokens are masked, features of all layers and values
    are predicted. Evaluation segments start every 5 hours, so that all hours of the day occur among them.

    Command: jepa pretrain series-small --data.root first_year.csv --out runs/series --threads 1 --steps 1941
    Takes: 276 s on one core that other work shared.
    Result: hour of the day of a segment's first sample, 24 classes, logistic regression on ETTh1, trained on hours 0 to
    8,639, tested on hours 8,640 to 14,399 (seed 0): 50.8 % from the last four layers, 45.5 % from the last; the
    untrained encoder has 43.8 and 45.3. Raw segments have 99.9 % (the phase is linear in them), the mean raw token
    51.1, Fourier magnitudes 5.7, chance 4.2. So the mean features of this run hold less of the phase than the values.
    Source: Assran et al., CVPR 2023, arXiv 2301.08243, for the method; the settings are this project's.
    """
    data = Series(length=336, window=12, channels=7, stride=5)
    method = JEPA(ViTConfig(dim=128, depth=4, num_heads=4), PredictorConfig(dim=64))
    return dataclasses.replace(tune_for_minutes(Pretrain(data), method), epochs=75.0)
