"""The cross-entropy method (CEM).   B tasks  S sampled sequences  K elites  H steps  A action's width"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.planning.planners.plan import Cost, Plan, sample_around


def cem(
    cost: Cost,
    start: Float[Tensor, "B H A"],
    generator: torch.Generator,
    *,
    samples: int = 64,
    iterations: int = 5,
    std: float = 1.0,
    elites: int = 8,
    momentum: float = 0.1,
) -> Plan:
    """Minimize a cost over sequences of actions: fit a normal distribution to the best samples, again and again.

    `momentum` keeps a part of the last mean and spread.
    Source: Rubinstein 1999; as a planner in latent space, Hafner et al., ICML 2019, arXiv 1811.04551, algorithm 2.
    """
    mean, spread = start, torch.full_like(start, std)
    for _ in range(iterations):
        candidates = sample_around(mean, spread, samples, generator)
        costs = cost(candidates)
        best = costs.topk(elites, 1, largest=False).indices[..., None, None].expand(-1, -1, *candidates.shape[2:])
        elite = candidates.gather(1, best)
        mean = momentum * mean + (1 - momentum) * elite.mean(1)
        spread = momentum * spread + (1 - momentum) * elite.std(1)
    return Plan(mean, candidates, costs)
