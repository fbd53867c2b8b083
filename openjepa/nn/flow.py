"""A transformer for flow matching, and samples of its noise and times.

B batch  T tokens  E raw width  K condition tokens  C condition width
"""

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

MIN_TIME_LEFT = 0.05  # lower bound on the remaining time 1 - t by which the loss divides errors

FREQUENCIES = 128  # of the sine-cosine embedding of the time


class Conditions(NamedTuple):
    """The features that a flow is conditioned on."""

    x: Float[Tensor, "B K C"]


class FlowTransformer(nn.Module):
    """A transformer that predicts clean patches from noisy ones.

    Time and condition are added to every token. A small network that predicts the patch instead of the noise does not
    need to carry the noise through its layers (Li and He, 2025, arXiv 2511.13720).
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
        """Predict the clean patches: (B, T, E)."""
        time_embedding = self.time(timestep_embedding(time))[:, None]
        conditioning = time_embedding + self.condition(F.layer_norm(condition, condition.shape[-1:]))
        x = self.embed(noisy.x) + sincos(noisy.pos, self.dim) + conditioning
        for block in self.blocks:
            x = block(x)
        return self.proj(self.norm(x))


def velocity(
    network: nn.Module, noisy: Tokens, time: Float[Tensor, "B"], conditions: Conditions
) -> Float[Tensor, "B T E"]:
    """Compute the velocity implied by the predicted clean patches: (x̂ - x_t) / (1 - t), for t < 1."""
    return (network(noisy, time, conditions.x).float() - noisy.x) / (1 - time)[:, None, None]


def timestep_embedding(time: Float[Tensor, "B"]) -> Float[Tensor, "B F"]:
    """Embed times in [0, 1] as sines and cosines with periods of about 2π/1000 to 2π·10."""
    k = torch.arange(FREQUENCIES, device=time.device) / FREQUENCIES
    angle = 1000.0 * time[:, None] * 10_000.0**-k
    return torch.cat([angle.sin(), angle.cos()], 1)


def normal_samples(rng: CounterRNG, name: str, shape: tuple[int, ...]) -> Float[Tensor, "B *S"]:
    """Draw standard normal values for each sample (Box and Muller, 1958)."""
    radius, angle = (rng.uniform(f"{name} {part}", *shape) for part in ("radius", "angle"))
    return (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos()


def sample_times(rng: CounterRNG) -> Float[Tensor, "B"]:
    """Draw a logit-normal time in (0, 1) for each sample, most of them early (as in Li and He, 2025)."""
    return (0.8 * normal_samples(rng, "time", ()) - 0.8).sigmoid()
