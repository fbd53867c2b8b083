"""Perception: from what is seen now to the latent of the world's state.   B tasks  C channels  H W pixels

S values of a state  N cells  D width"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor

from openjepa.nn.world import World


class Perception:
    """Encode one observation of each task."""

    def __init__(self, world: World, modality: Any):
        self.world, self.modality = world, modality

    def __call__(self, observation: UInt8[Tensor, "B C H W"] | Float[Tensor, "B S"]) -> Float[Tensor, "B N D"]:
        (tokens,) = self.world(self.modality.tokens(observation[:, None]))
        return tokens.x.float()
