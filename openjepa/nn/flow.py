"""A transformer for flow matching, and its noise and time samples.   B batch  T tokens  E raw width  K conditions"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Tokens
from openjepa.nn.positions import sincos
from openjepa.nn.transformer import Block

MIN_TIME_LEFT = 0.05  # of the time: errors with less left weigh no more

FREQUENCIES = 128  # of the time's sines and cosines


class Conditions(NamedTuple):
    """What is drawn from."""

    x: Float[Tensor, "B K C"]


class FlowTransformer(nn.Module):
    """A transformer on noisy patches: what each is without its noise. Time and condition are added to every token.

    Asked for the patch and not for the noise, a small network need not carry noise through (Li and He, 2025, arXiv
    2511.13720).
    """

    def __init__(self, condition: int, width: int, dim: int, depth: int, num_heads: int):
        super().__init__()
        self.dim = dim
        self.embed = nn.Linear(width, dim)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.condition = nn.Sequential(nn.Linear(condition, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads, 4.0) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.proj = nn.Linear(dim, width)

    def forward(self, noisy: Tokens, time: Float[Tensor, "B"], condition: Float[Tensor, "B K C"]) -> Tensor:
        """The patches: (B, T, E)."""
        given = self.time(timestep_embedding(time))[:, None] + self.condition(
            F.layer_norm(condition, condition.shape[-1:])
        )
        x = self.embed(noisy.x) + sincos(noisy.pos, self.dim) + given
        for block in self.blocks:
            x = block(x)
        return self.proj(self.norm(x))


def velocity(
    drawer: nn.Module, noisy: Tokens, time: Float[Tensor, "B"], conditions: Conditions
) -> Float[Tensor, "B T E"]:
    """Which way each patch is to go: to what the drawer takes it for, in the time that is left, of which there is some."""
    return (drawer(noisy, time, conditions.x).float() - noisy.x) / (1 - time)[:, None, None]


def timestep_embedding(time: Float[Tensor, "B"]) -> Float[Tensor, "B F"]:
    """Sines and cosines of times in [0, 1], of periods from a thousandth to ten."""
    k = torch.arange(FREQUENCIES, device=time.device) / FREQUENCIES
    angle = 1000.0 * time[:, None] * 10_000.0**-k
    return torch.cat([angle.sin(), angle.cos()], 1)


def normal_samples(draws: CounterRNG, name: str, shape: tuple[int, ...]) -> Float[Tensor, "B *S"]:
    """Normal numbers of each sample's own (Box and Muller, 1958)."""
    radius, angle = (draws.uniform(f"{name} {part}", *shape) for part in ("radius", "angle"))
    return (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos()


def sample_times(draws: CounterRNG) -> Float[Tensor, "B"]:
    """A time in (0, 1) for each sample, logit-normal, most of them early (as Li and He have it)."""
    return (0.8 * normal_samples(draws, "time", ()) - 0.8).sigmoid()
