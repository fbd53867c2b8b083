"""Many carts at once, each with a pole to balance: the exact equations as tensors.

A state is (position, velocity, angle from upright, angular velocity), in meters and radians.
B carts

Source: Barto, Sutton and Anderson, IEEE Transactions on Systems, Man, and Cybernetics 13, 1983, without friction; the
constants are those of gymnasium's CartPole-v1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.core.rng import CounterRNG

GRAVITY = 9.8

CART_MASS, POLE_MASS = 1.0, 0.1

HALF_LENGTH = 0.5  # of the pole

FORCE = 10.0  # of a push

SECONDS = 0.02  # of a step

MAX_POSITION, MAX_ANGLE = 2.4, 12 * 2 * math.pi / 360  # beyond which an episode ends

MAX_STEPS = 500

START = 0.05  # largest value of a first state


def draw_starts(count: int, seed: int) -> Float[Tensor, "B 4"]:
    """Draw first states, a function of the seed alone."""
    return (2 * CounterRNG.of(seed, 0, np.arange(count)).uniform("start", 4) - 1) * START


def push(state: Float[Tensor, "B 4"], force: Float[Tensor, "B"]) -> Float[Tensor, "B 4"]:
    """Return the states one step later, by Euler's method: positions move with the velocities before the push."""
    _, velocity, angle, spin = state.unbind(1)
    total, moment = CART_MASS + POLE_MASS, POLE_MASS * HALF_LENGTH
    sine, cosine = angle.sin(), angle.cos()
    pushed = (force + moment * spin.square() * sine) / total
    inertia = HALF_LENGTH * (4 / 3 - POLE_MASS * cosine.square() / total)
    turned = (GRAVITY * sine - cosine * pushed) / inertia  # angular acceleration
    moved = pushed - moment * turned * cosine / total  # acceleration of the cart
    rates = torch.stack([velocity, moved, spin, turned], 1)
    return state + SECONDS * rates


def has_fallen(state: Float[Tensor, "B 4"]) -> Bool[Tensor, "B"]:
    """Return which carts have left the track or let their pole fall."""
    return (state[:, 0].abs() > MAX_POSITION) | (state[:, 2].abs() > MAX_ANGLE)


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
