"""Recipes for world models with several levels (H-JEPA), on rooms that are rendered."""

from __future__ import annotations

from openjepa.data.rendered import FORMS
from openjepa.masking.random import Random
from openjepa.methods.hierarchical import Hierarchical
from openjepa.methods.world_model import WorldModel
from openjepa.modalities.trajectory import Trajectory
from openjepa.nn.level import LevelConfig
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim

STEPS, BATCH, RAMP = 4500, 6, 4.8  # the weight of prediction grows for a fifth of the run

DEMO_STEPS = 3000  # of jepa demo four-rooms

WINDOW, TURN = 51, 0.1  # steps of a window: two of the highest level, from each start; walks that rarely turn


def world_levels() -> Pretrain:
    """Three levels of world models in four rooms with a distractor, with steps of 1, 4 and 16 pushes (H-JEPA).

    Command: jepa pretrain world-levels --out runs/levels --threads 1
    Takes: 20 minutes of one CPU core.
    Result: in layouts that never occur in training, two levels reach 100, 99.3 and 99.3 % of 300 goals (three seeds),
    one level 84.7, 80.0 and 90.7 % with somewhat more imagined steps.
    Source: LeCun 2022, sections 4.6 and 4.7; the settings are this project's.
    """
    return levels_run("four-rooms-distractor")


def levels_run(world: str, steps: int = STEPS) -> Pretrain:
    """Return the run for a world of rooms, with so many steps."""
    form = FORMS[world]
    data = Trajectory(world=world, steps=WINDOW, turn=TURN, size=form.size, channels=form.channels, scale=form.scale)
    method = Hierarchical(WorldModel(ramp=round(BATCH * steps / RAMP)), (LevelConfig(), LevelConfig()))
    optim = Optim(
        lr=2e-3, start_lr=0.0, final_lr=0.0, weight_decay=1e-5, final_weight_decay=1e-5, warmup=0.02, clip=5.0
    )
    return Pretrain(data, method, Random(), optim, batch_size=BATCH, steps=steps, precision="fp32")
