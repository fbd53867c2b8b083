"""Recipes for world models that plan, on rooms that are rendered."""

from __future__ import annotations

import dataclasses

from openjepa.masking.random import Random
from openjepa.methods.actor import Actor
from openjepa.methods.critic import Critic
from openjepa.methods.locate import Locate
from openjepa.methods.world_model import WorldModel
from openjepa.modalities.trajectory import Trajectory
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim
from openjepa.training.stages import Stages

SPREAD = {"steps": 23, "stride": 4, "restart": 2, "episodes": 800}  # 24 observations all over a layout

STEPS = (9000, 2000, 1800, 400)  # of the four stages

BATCH, RAMP = 16, 4.8  # samples of a batch; the weight of prediction grows for a fifth of the first stage

DEMO_STEPS = (3500, 1500, 2400, 400)  # of jepa demo rooms


def world_rooms() -> Stages:
    """Two rooms with a random wall and door: a world model, its locator, a critic in its imagination, and a policy.

    Command: jepa pretrain world-rooms --out runs/rooms --threads 1; four rooms: --data.world four-rooms
    Takes: 15 minutes of one CPU core.
    Result: in layouts that never occur in training, mode 1 reaches 97.7, 95.7 and 94.7 % of 300 goals (seeds 0, 1, 2),
    mode 2 97.0, 97.0 and 93.3 %; docs/explained/agent.md has the baselines.
    Source: LeCun 2022 for the modules; the settings are this project's.
    """
    return rooms_stages("two-rooms")


def rooms_stages(world: str, steps: tuple[int, int, int, int] = STEPS) -> Stages:
    """Return the four stages for a world of rooms, with so many steps each."""
    data = Trajectory(world=world)
    far = dataclasses.replace(data, **SPREAD)
    model = WorldModel(ramp=round(BATCH * steps[0] / RAMP))
    critic = Critic(world=model)
    optim = Optim(
        lr=2e-3, start_lr=0.0, final_lr=0.0, weight_decay=1e-5, final_weight_decay=1e-5, warmup=0.02, clip=5.0
    )
    base = Pretrain(data, model, Random(), optim, batch_size=BATCH, steps=steps[0], precision="fp32")
    quick = dataclasses.replace(optim, lr=3e-3)
    slow = dataclasses.replace(optim, lr=1e-3, ema_momentum=0.95, final_ema_momentum=0.95)  # 2e-3: values swing
    locator = dataclasses.replace(base, method=Locate(model), optim=quick, batch_size=32, steps=steps[1])
    valued = dataclasses.replace(base, data=far, method=critic, optim=slow, batch_size=12, steps=steps[2])
    acting = dataclasses.replace(base, data=far, method=Actor(critic), optim=optim, batch_size=12, steps=steps[3])
    return Stages((base, locator, valued, acting))
