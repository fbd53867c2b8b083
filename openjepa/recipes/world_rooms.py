"""Recipes for world models that plan, on rooms that are rendered."""

from __future__ import annotations

import dataclasses

from openjepa.masking.random import Random
from openjepa.methods.actor import Actor
from openjepa.methods.critic import Critic
from openjepa.methods.world_model import WorldModel
from openjepa.modalities.trajectory import Trajectory
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim
from openjepa.training.stages import Stages

SPREAD = {"steps": 23, "stride": 8}  # 24 observations of a walk, far enough apart to be all over the rooms


def world_rooms() -> Stages:
    """Two rooms with a random wall and door: a world model, a critic in its imagination, a policy of the critic.

    Command: jepa pretrain world-rooms --out runs/rooms
    Source: LeCun 2022 for the modules; the settings are this project's.
    """
    return rooms_stages("two-rooms")


def rooms_stages(world: str) -> Stages:
    """Return the three stages for a world of rooms."""
    data = Trajectory(world=world)
    far = dataclasses.replace(data, **SPREAD)
    model = WorldModel()
    critic = Critic(world=model)
    optim = Optim(
        lr=2e-3, start_lr=0.0, final_lr=0.0, weight_decay=1e-5, final_weight_decay=1e-5, warmup=0.02, clip=5.0
    )
    slow = dataclasses.replace(optim, ema_momentum=0.85, final_ema_momentum=0.85)
    base = Pretrain(data, model, Random(), optim, batch_size=16, steps=3000)
    return Stages(
        (
            base,
            dataclasses.replace(base, data=far, method=critic, optim=slow, batch_size=12, steps=400),
            dataclasses.replace(base, data=far, method=Actor(critic), optim=optim, batch_size=12, steps=200),
        )
    )
