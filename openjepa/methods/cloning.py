"""Behavior cloning: an actor on the latents of a world model that does what the recorded actions did.

B batch  T steps  F = T + 1 observations  N cells of a latent (1 for a vector)  D width  A action's width
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.types import Batch, Output, Signal
from openjepa.methods.base import BaseMethod, WorldConfig
from openjepa.methods.world_model import WorldModel
from openjepa.nn.convnet import ConvNet
from openjepa.nn.world import World, encode_steps


@dataclass(frozen=True)
class Cloning(WorldConfig):
    """Regress recorded actions on latents: those of what was observed, and those that the world model imagines.

    z_t = encoder(x_t),  p_0 = z_0,  p_t+1 = dynamics(p_t, a_t)

    L = mean_t |a_t - actor(z_t)|² + imagined · mean_t |a_t - actor(p_t)|²

    Noise in the recorded actions averages out. The world model is frozen.
    Source: Girgis et al., Time-Series JEPA, arXiv 2406.04853, for the actor on frozen latents. Differs: it also learns
    on imagined latents, on which it acts while nothing is received.
    """

    world: WorldModel = field(default_factory=WorldModel)  # of the run whose weights this one starts from; frozen
    hidden: int = 256  # units of the hidden layers of the actor
    imagined: float = 1.0  # weight of the error on imagined latents

    def networks(self, modality: Any) -> CloningMethod:
        return CloningMethod(self, modality)

    def check(self, data: Any, masks: Any) -> None:
        """Raise UserError if the dynamics do not fit the latents."""
        self.world.check(data, masks)

    def describe(self) -> str:
        return f"actor of {self.hidden} hidden units on {self.world.describe()}"

    def signals(self) -> tuple[Signal, ...]:
        return ()


class CloningWorld(World):
    """A frozen world, and an actor that reads its latents."""

    def __init__(self, perception: ConvNet, dynamics: nn.Module, actions: int, hidden: int):
        super().__init__(perception, dynamics)
        self.requires_grad_(False)
        cells = 1 if perception.config.latent == "vector" else perception.cells[0] * perception.cells[1]
        self.actor = nn.Sequential(
            nn.Linear(cells * perception.config.dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, actions),
        )  # fmt: skip

    def act(self, state: Float[Tensor, "B N D"]) -> Float[Tensor, "B A"]:
        """Return the action in a state."""
        return self.actor(state.flatten(1))


class CloningMethod(BaseMethod):
    """Networks and loss of a `Cloning` config."""

    def __init__(self, config: Cloning, modality: Any):
        super().__init__()
        self.config, self.modality = config, modality
        self.world = CloningWorld(*config.world.build_parts(modality), modality.action_dim, config.hidden)

    def forward(self, batch: Batch, targets: None) -> Output:
        """Compute the errors of the actions on observed and on imagined latents."""
        assert batch.conditions is not None
        actions = batch.conditions
        states = encode_steps(self.world, self.modality.tokens(batch.views[0]), batch.views[0].shape[1])
        observed = self.error(states[:, :-1], actions)
        with torch.no_grad():
            imagined = self.world.unroll(states[:, 0], actions[:, :-1])
        blind = self.error(imagined, actions[:, 1:])
        metrics = {"observed": observed.detach(), "imagined": blind.detach()}
        return Output(observed + self.config.imagined * blind, metrics, states[:, 0].mean(1))

    def error(self, states: Float[Tensor, "B T N D"], actions: Float[Tensor, "B T A"]) -> Float[Tensor, ""]:
        return F.mse_loss(self.world.act(states.flatten(0, 1)), actions.flatten(0, 1))

    def encoders(self) -> dict[str, nn.Module]:
        return {"world": self.world}
