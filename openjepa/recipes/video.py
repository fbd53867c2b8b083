"""Video on small machines: the future is predicted from the past."""

from __future__ import annotations

import dataclasses

from openjepa.core.errors import UserError
from openjepa.masking.causal import Causal
from openjepa.methods.jepa import JEPA
from openjepa.modalities.video import Video
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.recipes.image_small import tune_for_minutes
from openjepa.training.config import Pretrain

CLIPS_SEEN = 128_000  # clips over all epochs of a run without --budget

FEWEST = 8  # clips, to have a batch of several


def video_small() -> Pretrain:
    """Video on a CPU: 8 frames of 64×64 pixels, tubelets of 2×8×8, a ViT of width 128 and depth 4.

    The first 1/4 to 1/2 of a clip is visible; features and pixels of the rest are predicted. With these settings the
    demo's clips of 32×32 pixels teach direction and speed of a moving object in six and a half minutes: 97.1 and
    89.5 % of test clips by an attentive head, 73.8 and 47.4 before training (three seeds: docs/modalities/video.md).

    Command: jepa pretrain video-small --data.root clips/ --out runs/clips --budget 1h
    Takes: as long as --budget says.
    Source: Bardes et al., arXiv 2404.08471, for the method; masks and settings are this project's.
    """
    return dataclasses.replace(tune_for_video(Video(frames=8, size=(64, 64), patch=8)), epochs=40.0)


def tune_for_video(data: Video) -> Pretrain:
    """Return the networks, the objective and the masks of small runs on video.

    Those of `cifar10-minutes`, with causal masks, targets from whole clips and Muon.
    """
    method = JEPA(ViTConfig(dim=128, depth=4, num_heads=4), PredictorConfig(dim=64))
    config = tune_for_minutes(Pretrain(data), method)
    return dataclasses.replace(
        config,
        masks=Causal(context_fraction=(0.25, 0.5)),
        method=dataclasses.replace(config.method, target_input="whole"),
        optim=dataclasses.replace(config.optim, optimizer="muon", lr=2e-3),
    )


def choose_settings(data: Video) -> tuple[Pretrain, tuple[str, ...]]:
    """Choose the settings of a run without a recipe, and return them with the reasons, one line each.

    Raises UserError if there are fewer than `FEWEST` clips.
    """
    count = len(data.dataset(data.listing()))
    if count < FEWEST:
        raise UserError(
            f"too few clips to learn from: {count} in {' '.join(data.root)}; give more files, or cut long ones into "
            "several clips: --data.every 2"
        )
    small = video_small().data
    data = dataclasses.replace(data, frames=small.frames, size=small.size, patch=small.patch)
    config = tune_for_video(data)
    batch = min(config.batch_size, 2 ** (count.bit_length() - 1))
    steps_per_epoch = count // batch
    epochs = max(1, round(CLIPS_SEEN / (batch * steps_per_epoch)))
    steps = f"without --budget: {epochs * steps_per_epoch:,} steps with batch size {batch}, about {CLIPS_SEEN:,} clips"
    return dataclasses.replace(config, batch_size=batch, epochs=float(epochs)), (
        f"{data.describe()}; a ViT of width {config.method.encoder.dim} and depth {config.method.encoder.depth}; the "
        "future of a clip is predicted from its past",
        f"{count:,} clips; {steps}",
    )
