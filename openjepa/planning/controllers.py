"""Known controllers as baselines: written by hand from the equations of a system, without learning.

B states
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError

Controller = Callable[[Tensor], Tensor]  # states (B, S) -> actions (B, A), as they are stored

CARTPOLE_GAIN = (0.1, 0.3, 1.0, 0.5)  # of position, velocity, angle, angular velocity

GRAVITY_TERM, TORQUE_TERM = 15.0, 3.0  # Pendulum-v1: angular acceleration = 15 sin(angle) + 3 torque

MAX_TORQUE = 2.0

UPRIGHT_GAIN = (10.0, 2.5)  # torque for each radian from upright, and for each radian a second

CAPTURE = 0.4  # radians from upright within which the linear feedback can hold the pendulum


def balance_cart(state: Float[Tensor, "B 4"]) -> Float[Tensor, "B 2"]:
    """Push CartPole-v1's cart towards where the pole falls and away from the middle: linear feedback, as a sign."""
    falls_right = state @ state.new_tensor(CARTPOLE_GAIN) > 0
    return torch.stack([~falls_right, falls_right], 1).float()


def swing_up(state: Float[Tensor, "B 3"]) -> Float[Tensor, "B 1"]:
    """Turn Pendulum-v1 up: pump energy until it equals that of the upright rest, then hold by linear feedback.

    Source: Åström and Furuta, Automatica 36, 2000, equation 8 for the energy.
    """
    cosine, sine, spin = state.unbind(1)
    angle = torch.atan2(sine, cosine)
    missing = GRAVITY_TERM * (1 - cosine) - spin.square() / 2  # energy
    pump = MAX_TORQUE * (missing * torch.where(spin == 0, 1.0, spin.sign())).sign()
    hold = -(UPRIGHT_GAIN[0] * angle + UPRIGHT_GAIN[1] * spin)
    torque = torch.where(angle.abs() < CAPTURE, hold, pump)
    return torque.clamp(-MAX_TORQUE, MAX_TORQUE)[:, None]


CONTROLLERS: dict[str, Controller] = {"CartPole-v1": balance_cart, "Pendulum-v1": swing_up}


def controller_of(env: str) -> Controller:
    """Return the known controller of an environment. Raises UserError if it has none."""
    if env not in CONTROLLERS:
        raise UserError(f"no controller of {env!r} is known, only of {', '.join(CONTROLLERS)}: type --policy random")
    return CONTROLLERS[env]
