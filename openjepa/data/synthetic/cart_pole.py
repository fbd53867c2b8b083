"""Carts, each with a pole to balance: the exact equations as tensors, a known controller, and what a camera sees.

A state is (position, velocity, angle from upright, angular velocity), in meters and radians.
B carts  T commands  F = T + 1 times  H W pixels

Source: Barto, Sutton and Anderson, IEEE Transactions on Systems, Man, and Cybernetics 13, 1983, without friction; the
constants are those of gymnasium's CartPole-v1.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from openjepa.core.rng import CounterRNG

GRAVITY = 9.8

CART_MASS, POLE_MASS = 1.0, 0.1

HALF_LENGTH = 0.5  # of the pole

SECONDS = 0.02  # of a step

MAX_POSITION, MAX_ANGLE = 2.4, 12 * 2 * math.pi / 360  # beyond which an episode ends

PERIOD = 3  # steps for which a command holds: 60 ms

LARGEST = 20.0  # newtons; a command of 1 is a push of this force

STATE_COST, FORCE_COST = (1.0, 0.1, 10.0, 0.1), 0.01  # of the known controller: squared values, weighted

HEIGHT, WIDTH = 32, 64  # pixels of a frame

PIXEL = 2 * MAX_POSITION / WIDTH  # meters: the frame is as wide as the track

CART_ROW, CART_SIZE, POLE_WIDTH = 26.0, (7.0, 4.0), 1.2  # pixels: center, width and height of a cart; radius of a pole


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


def obey(
    state: Float[Tensor, "B 4"], command: Float[Tensor, "B"], disturbance: Float[Tensor, "B"] | float = 0.0
) -> Float[Tensor, "B 4"]:
    """Return the states after a command, from -1 to 1, has held for its time, with a force that nobody commanded.

    Positions move with the velocities after a push (semi-implicit Euler), so that two pictures show the velocities.
    """
    force = LARGEST * command.clamp(-1.0, 1.0) + disturbance
    for _ in range(PERIOD):
        speed = push(state, force)[:, 1::2]
        state = torch.stack([state[:, ::2] + SECONDS * speed, speed], 2).flatten(1)
    return state


@cache
def gain() -> Float[Tensor, "4"]:
    """Return the gain of the linear-quadratic regulator for small angles, by iterating Riccati's equation."""
    zero = torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    move, act = torch.autograd.functional.jacobian(obey, zero)
    a, b = move[0, :, 0], act[0]
    cost, effort = torch.tensor(STATE_COST, dtype=torch.float64).diag(), FORCE_COST * LARGEST**2
    value = cost
    for _ in range(1000):
        k = (b.T @ value @ a) / (effort + b.T @ value @ b)
        value = cost + a.T @ value @ (a - b @ k)
    return k[0].float()


def balance(state: Float[Tensor, "B 4"]) -> Float[Tensor, "B"]:
    """Return the commands of the known controller, from -1 to 1."""
    return -(state @ gain()).clamp(-1.0, 1.0)


def draw_cart(state: Float[Tensor, "*B 4"]) -> UInt8[Tensor, "*B H W"]:
    """Draw carts from the side: edges fall over one pixel, so that movements below a pixel are seen."""
    x = (state[..., 0, None, None] + MAX_POSITION) / PIXEL
    angle = state[..., 2, None, None]
    rows, columns = torch.arange(HEIGHT)[:, None] + 0.5, torch.arange(WIDTH) + 0.5
    width, height = CART_SIZE
    beside = torch.maximum((columns - x).abs() - width / 2, (rows - CART_ROW).abs() - height / 2)
    length = 2 * HALF_LENGTH / PIXEL
    tip_x, tip_y = length * angle.sin(), -length * angle.cos()
    from_x, from_y = columns - x, rows - (CART_ROW - height / 2)
    along = ((from_x * tip_x + from_y * tip_y) / length**2).clamp(0.0, 1.0)
    aside = torch.hypot(from_x - along * tip_x, from_y - along * tip_y) - POLE_WIDTH
    light = torch.maximum(0.6 * (0.5 - beside).clamp(0.0, 1.0), (0.5 - aside).clamp(0.0, 1.0))
    return (255 * light).round().to(torch.uint8)


def draw_pair(state: Float[Tensor, "*B 4"]) -> UInt8[Tensor, "*B 2 H W"]:
    """Draw what is seen now and what was seen one step before: a movement needs both."""
    position, speed = state[..., ::2], state[..., 1::2]
    before = torch.stack([position - SECONDS * speed, speed], -1).flatten(-2)
    return draw_cart(torch.stack([state, before], -2))


class Drives(NamedTuple):
    """Carts under commands."""

    state: Float[Tensor, "B F 4"]
    command: Float[Tensor, "B T"]


SPREAD = (1.2, 1.2, 0.15, 1.0)  # of the first states of drives, to each side

MOST_NOISE, DISTURBANCE = 0.6, 1.0  # standard deviations: of commands, at most; of the force that nobody commands


def draw_drives(rng: CounterRNG, steps: int) -> Drives:
    """Draw carts that the known controller drives, each disturbed by noise of its own size.

    Without much noise, commands would tell what state they answer, and a model would not learn what they do.
    """
    states, commands = [(2 * rng.uniform("start", 4) - 1) * torch.tensor(SPREAD)], []
    noise = MOST_NOISE * rng.uniform("size of the noise", 1) * normal(rng, "noise", steps)
    disturbance = DISTURBANCE * normal(rng, "disturbance", steps)
    for step in range(steps):
        commands.append((balance(states[-1]) + noise[:, step]).clamp(-1.0, 1.0))
        states.append(obey(states[-1], commands[-1], disturbance[:, step]))
    return Drives(torch.stack(states, 1), torch.stack(commands, 1))


def normal(rng: CounterRNG, name: str, count: int) -> Float[Tensor, "B T"]:
    """Draw normal numbers, by Box and Muller's method."""
    radius, angle = rng.uniform(f"{name}: radius", count), rng.uniform(f"{name}: angle", count)
    return (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos()
