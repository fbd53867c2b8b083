"""Recipes for control over a channel that loses what is sent (Time-Series JEPA)."""

from __future__ import annotations

import dataclasses

from openjepa.data.rendered import FORMS
from openjepa.masking.random import Random
from openjepa.methods.cloning import Cloning
from openjepa.methods.world_model import WorldModel
from openjepa.modalities.trajectory import Trajectory
from openjepa.nn.convnet import ConvNetConfig
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim
from openjepa.training.stages import Stages

WINDOW = 15  # commands of a window: 0.9 seconds

STEPS, BATCH, RAMP = (4000, 1500), 16, 4.8


def ts_jepa() -> Stages:
    """Balance a pole from camera frames that arrive now and then: a world model of vectors, and an actor on it.

    Command: jepa pretrain ts-jepa --out runs/ts --threads 1
    Takes: 5 minutes of one CPU core.
    Result: with half of the packets lost, the pole stays up for 12.5 to 12.9 seconds of 15 (three seeds, 100 episodes),
    4.4 to 4.7 with the last command held and 13.5 with exact equations: docs/explained/agent.md.
    Source: Girgis, Valcarce and Bennis, Time-Series JEPA, arXiv 2406.04853. Differs: convolutions in place of a ResNet,
    terms against collapse and inverse dynamics beside the EMA, commands of a linear-quadratic regulator.
    """
    form = FORMS["cart-pole"]
    data = Trajectory(
        world="cart-pole", steps=WINDOW, size=form.size, channels=form.channels, patch=form.patch,
        action_dim=form.action_dim, scale=form.scale,
    )  # fmt: skip
    encoder = ConvNetConfig(dim=32, hidden=16, latent="vector")
    model = WorldModel(encoder, dynamics="mlp", target="ema", ramp=round(BATCH * STEPS[0] / RAMP))
    optim = Optim(
        lr=2e-3, start_lr=0.0, final_lr=0.0, weight_decay=1e-5, final_weight_decay=1e-5, warmup=0.02, clip=5.0,
        ema_momentum=0.99, final_ema_momentum=0.99,
    )  # fmt: skip
    base = Pretrain(data, model, Random(), optim, batch_size=BATCH, steps=STEPS[0], precision="fp32")
    return Stages((base, dataclasses.replace(base, method=Cloning(model), steps=STEPS[1])))
