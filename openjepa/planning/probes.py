"""Read positions, walls and doors out of latents.   R rows  E features  K values"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Probe = Callable[[Float[Tensor, "*B E"]], Float[Tensor, "*B K"]]

PENALTY = 1e-3  # of the linear probe, on standardized features

HIDDEN, STEPS, ROWS, RATE = 128, 600, 256, 1e-3  # of the nonlinear probe


class Standard(NamedTuple):
    """Mean and standard deviation of each column."""

    mean: Float[Tensor, "K"]
    std: Float[Tensor, "K"]

    @classmethod
    def of(cls, x: Float[Tensor, "R K"]) -> Standard:
        return cls(x.mean(0), x.std(0).clamp(min=1e-6))

    def apply(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def invert(self, x: Tensor) -> Tensor:
        return x * self.std + self.mean


def linear_probe(x: Float[Tensor, "R E"], y: Float[Tensor, "R K"]) -> Probe:
    """Fit values by ridge regression on standardized features."""
    inputs, outputs = Standard.of(x), Standard.of(y)
    features = inputs.apply(x).double()
    moment = features.T @ features / len(x) + PENALTY * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(moment, features.T @ outputs.apply(y).double() / len(x)).float()
    return lambda rows: outputs.invert(inputs.apply(rows) @ weight)


def nonlinear_probe(x: Float[Tensor, "R E"], y: Float[Tensor, "R K"], seed: int = 0) -> Probe:
    """Fit values by a network with one hidden layer."""
    inputs, outputs = Standard.of(x), Standard.of(y)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, y.shape[1]))
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    generator = torch.Generator().manual_seed(seed)
    features, values = inputs.apply(x), outputs.apply(y)
    with torch.enable_grad():
        for _ in range(STEPS):
            rows = torch.randint(len(x), (ROWS,), generator=generator)
            optimizer.zero_grad()
            F.mse_loss(network(features[rows]), values[rows]).backward()
            optimizer.step()
            schedule.step()
    network.requires_grad_(False)
    return lambda rows: outputs.invert(network(inputs.apply(rows)))
