"""An environment of gymnasium behind a few functions: reset, step, and those that translate its actions.

A width of an action: the number of discrete actions, or the values of a continuous one  S values of a state
"""

from __future__ import annotations

import contextlib
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.data.crops import resize

UNBOUNDED = 1e3  # largest value of an action without bounds


class Observation(NamedTuple):
    """What is seen and measured at one time."""

    frame: UInt8[np.ndarray, "H W C"] | None = None
    state: Float32[np.ndarray, "S"] | None = None


class Transition(NamedTuple):
    """What an action led to."""

    observation: Observation
    reward: float
    terminated: bool  # by success or failure
    truncated: bool  # by the limit of time


class GymEnv:
    """One environment; its frames are rendered and resized to `pixels`, 0: none.

    States are observations that are no images, flattened. Discrete actions are one-hot vectors.
    """

    def __init__(self, name: str, pixels: int = 0):
        self.gym, self.name, self.pixels = require_gymnasium(), name, pixels
        with readable_errors(self.gym, name):
            self.env: Any = self.gym.make(name, render_mode="rgb_array" if pixels else None)
        self.spaces, space = self.gym.spaces, self.env.action_space
        self.is_discrete = isinstance(space, self.spaces.Discrete)
        if not self.is_discrete and not (isinstance(space, self.spaces.Box) and len(space.shape) == 1):
            raise UserError(f"{name} has actions {space}: choose an environment of discrete actions, or of vectors")
        observed = self.env.observation_space
        self.has_images = isinstance(observed, self.spaces.Box) and len(observed.shape) == 3
        if self.has_images and not pixels:
            raise UserError(f"{name} has images as observations: type --pixels 64")
        spec = self.env.spec
        self.max_steps: int | None = spec.max_episode_steps if spec else None

    @property
    def action_dim(self) -> int:
        """Return the width of an action as it is stored."""
        space = self.env.action_space
        return int(space.n) if self.is_discrete else int(space.shape[0])

    def reset(self, seed: int) -> Observation:
        """Begin an episode, a function of the seed."""
        observation, _ = self.env.reset(seed=seed)
        return self.observe(observation)

    def step(self, action: Float32[np.ndarray, "A"]) -> Transition:
        """Act once; of a one-hot vector, the largest value counts."""
        space = self.env.action_space
        own = int(space.start) + int(action.argmax()) if self.is_discrete else action.astype(space.dtype)
        observation, reward, terminated, truncated, _ = self.env.step(own)
        return Transition(self.observe(observation), float(reward), bool(terminated), bool(truncated))

    def observe(self, observation: Any) -> Observation:
        """Return the state of an observation, and the frame if frames are rendered."""
        frame = self.draw() if self.pixels else None
        if self.has_images:
            return Observation(frame)
        return Observation(frame, np.asarray(self.spaces.flatten(self.env.observation_space, observation), np.float32))

    def draw(self) -> UInt8[np.ndarray, "H W C"]:
        """Render the present and resize it."""
        frame = torch.from_numpy(np.ascontiguousarray(self.env.render())).permute(2, 0, 1)[None]
        return resize(frame, (self.pixels, self.pixels))[0].permute(1, 2, 0).contiguous().numpy()

    def action_of(self, uniform: Float32[np.ndarray, "A"]) -> Float32[np.ndarray, "A"]:
        """Return the action of values in [0, 1): one of the discrete ones, or a vector between the bounds."""
        if self.is_discrete:
            return np.eye(self.action_dim, dtype=np.float32)[int(uniform[0] * self.action_dim)]
        low, high = self.bounds
        return (low + uniform * (high - low)).astype(np.float32)

    def bound(self, values: Float[Tensor, "*B A"]) -> Float[Tensor, "*B A"]:
        """Return values of a planner between -1 and 1, where actions are continuous."""
        return values if self.is_discrete else values.clamp(-1, 1)

    def decode(self, values: Float[Tensor, "*B A"]) -> Float[Tensor, "*B A"]:
        """Return the actions for values of a planner: the one with the largest value, or -1 and 1 for the bounds."""
        if self.is_discrete:
            return F.one_hot(values.argmax(-1), self.action_dim).to(values)
        low, high = self.bounds
        return torch.from_numpy(low) + (self.bound(values) + 1) / 2 * torch.from_numpy(high - low)

    @property
    def bounds(self) -> tuple[Float32[np.ndarray, "A"], Float32[np.ndarray, "A"]]:
        """Return the lowest and highest values of a continuous action; UNBOUNDED where a space has no bounds."""
        space = self.env.action_space
        low, high = (np.clip(bound, -UNBOUNDED, UNBOUNDED).astype(np.float32) for bound in (space.low, space.high))
        return low, high

    def close(self) -> None:
        self.env.close()


@contextlib.contextmanager
def readable_errors(gym: ModuleType, name: str):
    """Turn what gymnasium raises when it makes an environment into one sentence."""
    try:
        yield
    except gym.error.DependencyNotInstalled as error:
        raise UserError(f"{name} needs another package: {str(error).splitlines()[0]}") from error
    except (gym.error.Error, ModuleNotFoundError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"gymnasium cannot make {name!r} ({reason}): type for example CartPole-v1") from error


def require_gymnasium() -> ModuleType:
    """Import gymnasium, an optional dependency. Raises UserError if it is not installed."""
    try:
        import gymnasium
        import gymnasium.spaces
    except ImportError as error:
        raise UserError("environments of gymnasium require it: pip install 'openjepa[control]'") from error
    return gymnasium
