"""Random walks in rooms as a data set: drawn and rendered when they are read, so that nothing is stored.

B rooms  T observations  S steps of a walk
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Samples
from openjepa.data.synthetic.rooms import TURN, draw_episodes


@dataclass(frozen=True)
class RoomWalks:
    """Walk n is a function of (seed, n).

    A view has `steps` + 1 frames, with `stride` actions from one to the next; the conditions are all these actions.
    With `restart`, a new walk begins in the same room after as many frames, and the actions before it lead nowhere.
    """

    world: str
    size: int
    steps: int
    stride: int = 1
    restart: int = 0
    seed: int = 0
    turn: float = TURN  # probability of another direction at each step
    held_out: bool = False  # layouts that never occur in training

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    @property
    def fingerprint(self) -> str:
        return (
            f"{self.world}-{self.size}-{self.steps}-{self.stride}-{self.restart}-{self.seed}"
            + (f"-{self.turn:g}" if self.turn != TURN else "")
            + "-held-out" * self.held_out
        )

    def __len__(self) -> int:
        return self.size

    def source(self, index: int) -> str:
        return str(index)

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        rng = CounterRNG.of(self.seed, 0, index.numpy())
        walks = draw_episodes(
            self.world, rng, self.steps * self.stride, self.held_out, self.restart * self.stride, self.turn
        )
        return Samples((walks.frames(self.stride),), torch.full((len(index),), -1), conditions=walks.action)
