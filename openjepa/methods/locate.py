"""A locator: where on a map is what moves? Learned from actions alone.   B batch  T steps  N cells  D width"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import nn

from openjepa.core.types import Batch, Output, Signal
from openjepa.methods.base import BaseMethod, WorldConfig
from openjepa.methods.world_model import WorldModel
from openjepa.nn.inverse import VectorInverse
from openjepa.nn.world import LocatedWorld, encode_steps


@dataclass(frozen=True)
class Locate(WorldConfig):
    """Inverse dynamics through a bottleneck: the action must follow from where two latents attend.

    L = mean_t |a_t - MLP(locate(z_t), locate(z_t+1))|², with the latents of a frozen world

    Beside the world model's own inverse dynamics this one would be slow: attention settles before latents do.
    """

    world: WorldModel = field(default_factory=WorldModel)  # of the run whose weights this one starts from; frozen

    def networks(self, modality: Any) -> LocateMethod:
        return LocateMethod(self, modality)

    def check(self, data: Any, masks: Any) -> None:
        """Raise UserError if the world's latents are not maps."""
        self.world.check(data, masks)
        self.world.check_map()

    def describe(self) -> str:
        return f"locator on {self.world.describe()}"

    def signals(self) -> tuple[Signal, ...]:
        return ()


class LocateMethod(BaseMethod):
    """Networks and loss of a `Locate` config."""

    def __init__(self, config: Locate, modality: Any):
        super().__init__()
        self.config, self.modality = config, modality
        self.world = LocatedWorld(*config.world.build_parts(modality))
        self.inverse = VectorInverse(self.world.locator.summary_dim, modality.action_dim)

    def forward(self, batch: Batch, targets: None) -> Output:
        """Compute the error of the actions that are read from two summaries."""
        assert batch.conditions is not None
        states = encode_steps(self.world, self.modality.tokens(batch.views[0]), batch.views[0].shape[1])
        where = self.world.locate(states.flatten(0, 1)).summary.unflatten(0, (len(states), -1))  # B T+1 S
        now, later = where[:, :-1].flatten(0, 1)[:, None], where[:, 1:].flatten(0, 1)[:, None]
        error = F.mse_loss(self.inverse(now, later), batch.conditions.flatten(0, 1))
        return Output(error, {"inverse": error.detach()}, states[:, 0].mean(1))

    def encoders(self) -> dict[str, nn.Module]:
        return {"world": self.world}
