"""Many carts at once, each with a pole to balance, as an environment.   B carts"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.data.synthetic.cart_pole import has_fallen, push

FORCE = 10.0  # of a push

MAX_STEPS = 500

START = 0.05  # largest value of a first state


def draw_starts(count: int, seed: int) -> Float[Tensor, "B 4"]:
    """Draw first states, a function of the seed alone."""
    return (2 * CounterRNG.of(seed, 0, np.arange(count)).uniform("start", 4) - 1) * START


class CartPoleEnv:
    """Carts as one environment with a row for each; a cart whose pole has fallen stands still."""

    def __init__(self, state: Float[Tensor, "B 4"]):
        self.state = state

    def observe(self) -> Float[Tensor, "B 4"]:
        return self.state

    def step(self, action: Float[Tensor, "B 2"]) -> Float[Tensor, "B 4"]:
        """Push every cart to the left (1, 0) or to the right (0, 1)."""
        force = torch.where(action.argmax(1) == 1, FORCE, -FORCE).to(self.state.dtype)
        self.state = torch.where(has_fallen(self.state)[:, None], self.state, push(self.state, force))
        return self.state
