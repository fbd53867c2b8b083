"""An encoder of observations that can also imagine: the latents after actions that nobody took.

B batch  T steps  N cells of a latent (1 for a vector)  D width  A action's width  S width of a summary
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.protocols import Encoder
from openjepa.core.types import Keep, Tokens
from openjepa.nn.convnet import ConvNet
from openjepa.nn.locator import Location, Locator


class World(Encoder):
    """Perception (observation → latent) and dynamics (latent, action → latent)."""

    def __init__(self, perception: ConvNet, dynamics: nn.Module):
        super().__init__()
        self.perception, self.dynamics = perception, dynamics

    def forward(self, tokens: Tokens, keep: Keep | None = None, layers: tuple[int, ...] = (-1,)) -> tuple[Tokens, ...]:
        """Encode observations; see `ConvNet`."""
        return self.perception(tokens, keep, layers)

    def step(self, state: Float[Tensor, "B N D"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B N D"]:
        """Imagine the latent after an action."""
        return self.dynamics(state, action)

    def unroll(self, state: Float[Tensor, "B N D"], actions: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        """Imagine the latents after each action."""
        return unroll(self.step, state, actions)

    def locate(self, state: Float[Tensor, "B N D"]) -> Location:
        """Summarize latents by all their values."""
        return Location(state.flatten(1), state.new_full(state.shape[:2], 1 / state.shape[1]))


class LocatedWorld(World):
    """A frozen world, and the locator that summarizes its maps."""

    def __init__(self, perception: ConvNet, dynamics: nn.Module):
        super().__init__(perception, dynamics)
        self.requires_grad_(False)
        self.locator = Locator(perception.config.dim, perception.cells)

    def locate(self, state: Float[Tensor, "B N D"]) -> Location:
        """Summarize maps by a few values for what moves."""
        return self.locator(state)


def unroll(
    step: Callable[[Tensor, Tensor], Tensor], state: Float[Tensor, "B N D"], actions: Float[Tensor, "B T A"]
) -> Float[Tensor, "B T N D"]:
    """Apply a step again and again, each time with the next action; return the states after each."""
    states = []
    for action in actions.unbind(1):
        state = step(state, action)
        states.append(state)
    return torch.stack(states, 1)


def encode_steps(encoder: nn.Module, tokens: Tokens, steps: int) -> Float[Tensor, "B T N D"]:
    """Encode the observations of `steps` time steps."""
    (encoded,) = encoder(tokens)
    return encoded.x.float().unflatten(1, (steps, -1))
