"""Recipes for time series on small machines."""

from __future__ import annotations

import dataclasses

from openjepa.core.errors import UserError
from openjepa.methods.jepa import JEPA
from openjepa.modalities.series import Series
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.recipes.image_small import tune_for_minutes
from openjepa.training.config import Pretrain

SEGMENTS_SEEN = 64_000  # crops over all epochs of a run without --budget: as in `series-small`

FEWEST = 8  # segments, to have a batch of several


def series_small() -> Pretrain:
    """Two weeks of hourly measurements on one core: 7 channels, tokens of a day, ViT of width 128 and depth 4.

    Three of four tokens are masked, features of all layers and values are predicted. Segments start every 5 hours, so
    that all hours of the day occur among them.

    Command: jepa pretrain series-small --data.root first_year.csv --out runs/series --threads 1 --steps 1000
    Takes: 5 minutes on one core that other work shared.
    Result: hour of the day at which a segment of ETTh1's second year starts, 24 classes, in five blocks of time,
    logistic regression / kNN (seed 0): 90.2 / 90.1 %, before training 93.4 / 90.2, raw windows 97.9 / 87.6, Fourier
    magnitudes 4.7 / 4.7, chance 4.2. Training does not help there, and values have the hour anyway:
    docs/modalities/series.md.
    Source: Assran et al., CVPR 2023, arXiv 2301.08243, for the method; the settings are this project's.
    """
    return dataclasses.replace(tune_for_series(Series(length=336, window=24, channels=7, stride=5)), epochs=40.0)


def tune_for_series(data: Series) -> Pretrain:
    """Return the networks, the objective and the masks of small runs on series.

    Those of `cifar10-minutes` but for two settings. Targets are not centered: that would take out of them what all
    tokens of a crop share, such as the hour at which its days begin. Muon was better than AdamW after 500 steps.
    Both were chosen on ETTh2 (hours in its last fifth, one seed): docs/modalities/series.md.
    """
    method = JEPA(ViTConfig(dim=128, depth=4, num_heads=4), PredictorConfig(dim=64))
    config = tune_for_minutes(Pretrain(data), method)
    return dataclasses.replace(
        config,
        method=dataclasses.replace(config.method, target_transforms=("standardize",)),
        optim=dataclasses.replace(config.optim, optimizer="muon", lr=2e-3),
    )


def choose_settings(data: Series) -> tuple[Pretrain, tuple[str, ...]]:
    """Choose the settings of a run without a recipe, and return them with the reasons, one line each.

    Raises UserError if the files have fewer than `FEWEST` segments.
    """
    count = len(data.dataset(data.listing()))
    if count < FEWEST:
        raise UserError(
            f"too few signals to learn from: {count} segments of {data.length} time steps in {' '.join(data.root)}; "
            "give longer recordings or more of them"
        )
    config = tune_for_series(data)
    batch = min(config.batch_size, 2 ** (count.bit_length() - 1))
    steps_per_epoch = count // batch
    epochs = max(1, round(SEGMENTS_SEEN / (batch * steps_per_epoch)))
    masked = (
        f"{config.masks.mask_ratio:.0%} of each crop is masked at random; its values and its features are predicted"
    )
    steps = f"no --budget: {epochs * steps_per_epoch:,} steps with batch size {batch}, about {SEGMENTS_SEEN:,} crops"
    return dataclasses.replace(config, batch_size=batch, epochs=float(epochs)), (
        f"a ViT of width {config.method.encoder.dim} and depth {config.method.encoder.depth}; {masked}",
        f"{count:,} segments; {steps}",
    )
