"""Settings for world models on files of episodes."""

from __future__ import annotations

import dataclasses

from openjepa.core.errors import UserError
from openjepa.masking.random import Random
from openjepa.methods.world_model import WorldModel
from openjepa.modalities.trajectory import Trajectory
from openjepa.nn.convnet import ConvNetConfig
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim

STEPS = 3000  # of a run without --steps or --budget, as in `world-rooms`

FEWEST = 8  # windows, to have a batch of several

STATE_LATENT = ConvNetConfig(dim=64, hidden=128, latent="vector")  # of states, which have one cell


def choose_settings(data: Trajectory) -> tuple[Pretrain, tuple[str, ...]]:
    """Choose the settings of a run without a recipe, and return them with the reasons, one line each.

    Frames get latents that are maps, states get vectors. Raises UserError if there are fewer than FEWEST windows.
    """
    count = len(data.dataset(data.listing()))
    if count < FEWEST:
        raise UserError(
            f"too few episodes to learn from: {count} windows of {data.steps} steps in {' '.join(data.root)}; "
            "give more or longer episodes"
        )
    states = data.sensors == "states"
    method = WorldModel(STATE_LATENT, dynamics="mlp") if states else WorldModel()
    optim = Optim(
        lr=2e-3, start_lr=0.0, final_lr=0.0, weight_decay=1e-5, final_weight_decay=1e-5, warmup=0.02, clip=5.0
    )
    batch = min(64 if states else 16, 2 ** (count.bit_length() - 1))
    config = dataclasses.replace(Pretrain(data, method, Random(), optim), batch_size=batch, steps=STEPS)
    return config, (
        f"a world model: {method.describe()}; weights of the loss as in world-rooms, which no other data was used for",
        f"{count:,} windows of {data.steps + 1} observations; {STEPS:,} steps with batch size {batch}",
    )
