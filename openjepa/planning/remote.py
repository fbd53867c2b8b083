"""Balance poles over a channel: what a camera sees arrives now and then, and a controller acts on what it imagines.

B carts  T commands  C channels  H W pixels  N cells  D width of a latent
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.data.synthetic.cart_pole import (
    DISTURBANCE,
    HEIGHT,
    PERIOD,
    SECONDS,
    WIDTH,
    balance,
    draw_pair,
    has_fallen,
    normal,
    obey,
)
from openjepa.methods.cloning import CloningWorld
from openjepa.planning.perception import Perception

COMMANDS = 250  # of an episode: 15 seconds

START = 0.05  # largest value of a first state


class Channel(NamedTuple):
    """What reaches the controller."""

    lost: float = 0.0  # share of the packets
    every: int = 1  # observations for each that is sent


class Sight(NamedTuple):
    """What is to be known at a time; a controller reads rows that have not arrived at its own risk."""

    frames: UInt8[Tensor, "B C H W"]  # now and one step before
    state: Float[Tensor, "B 4"]
    arrived: Bool[Tensor, "B"]


Controller = Callable[[Sight], Float[Tensor, "B"]]


class ImaginingController:
    """Act on the latent of what arrived, otherwise on the one that the world model imagines after the last command."""

    def __init__(self, world: CloningWorld, modality: Any):
        self.world, self.perception = world, Perception(world, modality)
        self.latent: Float[Tensor, "B N D"] | None = None
        self.command: Float[Tensor, "B A"] | None = None

    def __call__(self, now: Sight) -> Float[Tensor, "B"]:
        latent = self.perception(now.frames)
        if self.latent is not None and self.command is not None:
            imagined = self.world.step(self.latent, self.command)
            latent = torch.where(now.arrived[:, None, None], latent, imagined)
        self.latent = latent
        self.command = self.world.act(latent).clamp(-1.0, 1.0)
        return self.command[:, 0]


class KeepingController:
    """Act on what arrived; otherwise give a part of the last command again: 1 holds it, 0 lets go."""

    def __init__(self, world: CloningWorld, modality: Any, keep: float):
        self.world, self.perception, self.keep = world, Perception(world, modality), keep
        self.command: Float[Tensor, "B"] | None = None

    def __call__(self, now: Sight) -> Float[Tensor, "B"]:
        command = self.world.act(self.perception(now.frames)).clamp(-1.0, 1.0)[:, 0]
        if self.command is not None:
            command = torch.where(now.arrived, command, self.keep * self.command)
        self.command = command
        return command


class ExactController:
    """Know the state that arrived and the equations: the known controller on the state that follows from them."""

    def __init__(self) -> None:
        self.state: Float[Tensor, "B 4"] | None = None
        self.command: Float[Tensor, "B"] | None = None

    def __call__(self, now: Sight) -> Float[Tensor, "B"]:
        state = now.state
        if self.state is not None and self.command is not None:
            state = torch.where(now.arrived[:, None], state, obey(self.state, self.command))
        self.state, self.command = state, balance(state)
        return self.command


class Balanced(NamedTuple):
    """How long poles stayed up, and what was sent."""

    seconds: Float[Tensor, "B"]
    packets: Float[Tensor, "B"]  # sent while the pole was up

    def mean(self) -> tuple[float, float]:
        """Return the mean of the seconds, and half the width of its 95 % interval."""
        return self.seconds.mean().item(), 1.96 * self.seconds.std().item() / len(self.seconds) ** 0.5


class RemoteRow(NamedTuple):
    """How long poles stay up with a controller over a channel."""

    name: str
    lost: float
    every: int
    seconds: float
    low: float  # of the 95 % interval of the mean
    high: float
    episodes: int
    latent_bytes: float  # in a second, if the encoder is on the sender's side: values of 4 bytes
    frame_bytes: float  # if it is not: both frames of an observation


@torch.no_grad()
def run_carts(
    controller: Controller, channel: Channel, count: int = 100, seed: int = 0, commands: int = COMMANDS
) -> Balanced:
    """Balance carts that a random force disturbs; the same seed draws the same starts, forces and losses.

    The first packet always arrives.
    """
    rng = CounterRNG.of(seed, 0, np.arange(count))
    state = (2 * rng.uniform("start", 4) - 1) * START
    disturbance = DISTURBANCE * normal(rng, "disturbance", commands)
    received = rng.uniform("packets", commands) >= channel.lost
    seconds, packets = torch.zeros(count), torch.zeros(count)
    up = torch.ones(count, dtype=torch.bool)
    for time in range(commands):
        sent = time % channel.every == 0
        arrived = received[:, time] & sent if time else torch.ones_like(up)
        command = controller(Sight(draw_pair(state), state, arrived))
        packets += up * float(sent)
        state = torch.where(up[:, None], obey(state, command, disturbance[:, time]), state)
        up = up & ~has_fallen(state)
        seconds += up * PERIOD * SECONDS
    return Balanced(seconds, packets)


def measure_channel(world: CloningWorld, modality: Any, channel: Channel, count: int, seed: int) -> list[RemoteRow]:
    """Run all controllers over a channel, with the same starts, forces and losses."""
    controllers: dict[str, Controller] = {
        "the world model imagines": ImaginingController(world, modality),
        "the last command again": KeepingController(world, modality, keep=1.0),
        "no command": KeepingController(world, modality, keep=0.0),
        "exact equations and states": ExactController(),
    }
    latent = 4 * world.perception.config.dim
    return [
        summarize(name, channel, run_carts(controller, channel, count, seed), latent)
        for name, controller in controllers.items()
    ]


def summarize(name: str, channel: Channel, balanced: Balanced, latent: int) -> RemoteRow:
    """Return the row of a controller; `latent` is the size of a latent in bytes."""
    (mean, half), rate = balanced.mean(), float(balanced.packets.sum() / balanced.seconds.sum().clamp(min=1e-6))
    frames = 2 * HEIGHT * WIDTH
    count = len(balanced.seconds)
    return RemoteRow(
        name, channel.lost, channel.every, mean, mean - half, mean + half, count, rate * latent, rate * frames
    )
