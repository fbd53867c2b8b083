"""Several environments of gymnasium that are acted in at once.

B episodes  A width of an action  S values of a state  C channels  H W pixels
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from openjepa.planning.envs.gym import GymEnv, Observation

UNLIMITED_STEPS = 1000  # of an episode of an environment without a limit of time


class GymBatch:
    """One episode for each seed; an episode that has ended stands still."""

    def __init__(self, name: str, seeds: Sequence[int], pixels: int = 0):
        self.envs = [GymEnv(name, pixels) for _ in seeds]
        self.observations: list[Observation] = [env.reset(seed) for env, seed in zip(self.envs, seeds, strict=True)]
        self.active = torch.ones(len(seeds), dtype=torch.bool)
        self.returns, self.steps = torch.zeros(len(seeds)), torch.zeros(len(seeds), dtype=torch.long)
        self.max_steps = self.envs[0].max_steps or UNLIMITED_STEPS

    def observe(self) -> UInt8[Tensor, "B C H W"] | Float[Tensor, "B S"]:
        """Return the frames, or the states if no frames are rendered."""
        if self.envs[0].pixels:
            frames = [each.frame for each in self.observations if each.frame is not None]
            return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
        return self.states()

    def states(self) -> Float[Tensor, "B S"]:
        """Return what the environments measure."""
        return torch.from_numpy(np.stack([each.state for each in self.observations if each.state is not None]))

    def step(self, action: Float[Tensor, "B A"]) -> None:
        """Act once in each environment whose episode has not ended, and add up the rewards."""
        for row, env in enumerate(self.envs):
            if not self.active[row]:
                continue
            after = env.step(action[row].numpy())
            self.observations[row] = after.observation
            self.returns[row] += after.reward
            self.steps[row] += 1
            self.active[row] = not (after.terminated or after.truncated or self.steps[row] >= self.max_steps)
