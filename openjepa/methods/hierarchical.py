"""H-JEPA: world models on top of each other, the higher ones coarser and with longer steps.

B batch  T steps  F = T + 1 observations  N cells  D width  A action's width  I width of what inverse dynamics read
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.types import Batch, Output
from openjepa.methods.base import BaseMethod, WorldConfig
from openjepa.methods.next_commands import Commands, level_commands
from openjepa.methods.world_model import Steps, WorldModel, world_loss
from openjepa.nn.inverse import LocalInverse
from openjepa.nn.level import Hierarchy, Level, LevelConfig, every_start, windows
from openjepa.nn.world import World, encode_steps


@dataclass(frozen=True)
class Hierarchical(WorldConfig):
    """A recurrent JEPA at each level: its states and macro-actions come from those of the level below.

    s^1_t = encoder^1(x_t),  a^1_t = a_t
    s^l_t = encoder^l(s^(l-1)_kt),  a^l_t = macro^l(a^(l-1)_kt … a^(l-1)_kt+k-1),  k the stride of level l

    L = sum over levels of the loss of `WorldModel`, with its weights; inverse dynamics of level l read all k actions

    Source: LeCun 2022, section 4.6 (H-JEPA).
    """

    whole_batch: ClassVar[bool] = True

    world: WorldModel = field(default_factory=WorldModel)  # the first level, and the weights of the terms of all
    levels: tuple[LevelConfig, ...] = (LevelConfig(),)  # those above it
    horizon: int = 8  # steps of a roll-out of the first level; a window of the data has one or more of them
    detach: bool = True  # keep the loss of a level from training the ones below

    def networks(self, modality: Any) -> HierarchicalNetworks:
        return HierarchicalNetworks(self, modality)

    def build_world(self, modality: Any) -> Hierarchy:
        """Build the worlds of all levels."""
        return Hierarchy(*self.world.build_parts(modality), modality.action_dim, self.levels)

    @property
    def strides(self) -> tuple[int, ...]:
        """Return the steps in the environment of a step of each level, the first included."""
        steps = [1]
        for level in self.levels:
            steps.append(steps[-1] * level.stride)
        return tuple(steps)

    def check(self, data: Any, masks: Any) -> None:
        """Raise UserError if the latents are not maps, or the data's windows are too short for the highest level."""
        self.world.check(data, masks)
        self.world.check_map()
        if self.world.target == "ema":
            raise UserError("levels predict what their own encoders see: give --method.world.target same")
        needed = 2 * self.strides[-1] - 1
        if data.steps < needed:
            raise UserError(
                f"a step of the highest level has {self.strides[-1]} steps in the environment and begins at any of as "
                f"many, so that windows of {data.steps} steps are too short: give --data.steps {needed}"
            )

    def next_commands(self, run: str, data: Any) -> Commands:
        """Return what to type next with a finished run in the folder `run`: (command, what it does)."""
        return super().next_commands(run, data) if data.root else level_commands(run)

    def describe(self) -> str:
        longer = ", ".join(f"{steps} steps" for steps in self.strides[1:])
        return f"{self.world.describe()}; {len(self.levels)} levels above it of {longer}"


class HierarchicalNetworks(BaseMethod):
    """The worlds of a `Hierarchical` config, and for each level the head that reads actions from two latents."""

    def __init__(self, config: Hierarchical, modality: Any):
        super().__init__()
        self.config, self.modality = config, modality
        self.world = config.build_world(modality)
        self.inverse = LocalInverse(config.world.encoder.dim, modality.action_dim, modality.grid)
        widths = [modality.action_dim, *(level.action_dim for level in config.levels)]
        self.inverses = nn.ModuleList(
            LocalInverse(level.config.dim, level.config.stride * actions, level.cells)
            for level, actions in zip(self.world.above, widths[:-1], strict=True)
        )

    def forward(self, batch: Batch, targets: None) -> Output:
        """Compute the sum of the losses of all levels."""
        assert batch.conditions is not None
        states = encode_steps(self.world, self.modality.tokens(batch.views[0]), batch.views[0].shape[1])
        actions = batch.conditions
        losses = [self.level_loss(self.world, self.inverse, states, actions, actions, self.config.horizon, batch.index)]
        for level, inverse in zip(self.world.above, self.inverses, strict=True):
            if self.config.detach:
                states, actions = states.detach(), actions.detach()
            stride = level.config.stride
            states, chunks = level.ascend(every_start(states, stride), every_start(actions, stride))
            inferred, actions = chunks.detach(), level.macro_actions(chunks)
            horizon = level.config.horizon
            losses.append(self.level_loss(level, inverse, states, actions, inferred, horizon, batch.index))
        return add_levels(losses)

    def level_loss(
        self,
        world: World | Level,
        inverse: nn.Module,
        states: Float[Tensor, "R F N D"],
        actions: Float[Tensor, "R T A"],
        inferred: Float[Tensor, "R T I"],
        horizon: int,
        index: Int[Tensor, "B"],
    ) -> Output:
        """Compute the loss of a level on windows of `horizon` of its steps; R rows, as many for each sample."""
        states = windows(states, horizon, 1)
        actions, inferred = windows(actions, horizon, 0), windows(inferred, horizon, 0)
        index = index.repeat_interleave(len(states) // len(index))
        return world_loss(self.config.world, world, inverse, Steps(states, actions, states[:, 1:], inferred), index)

    def encoders(self) -> dict[str, nn.Module]:
        return {"world": self.world}


def add_levels(levels: Sequence[Output]) -> Output:
    """Return the sum of the losses; the metrics of the levels above the first are named by the level's number."""
    metrics = dict(levels[0].metrics)
    for number, level in enumerate(levels[1:], 2):
        metrics |= {f"level{number}_{name}": value for name, value in level.metrics.items()}
    loss = levels[0].loss if len(levels) == 1 else torch.stack([level.loss for level in levels]).sum()
    return Output(loss, metrics, levels[0].features)
