"""Model predictive path integral control (MPPI).   B tasks  S sampled sequences  H steps  A action's width"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.planning.planners.plan import Cost, Plan, sample_around


def mppi(
    cost: Cost,
    start: Float[Tensor, "B H A"],
    generator: torch.Generator,
    *,
    samples: int = 64,
    iterations: int = 3,
    std: float = 1.0,
    temperature: float = 0.5,
) -> Plan:
    """Minimize a cost over sequences of actions: average samples around the last plan, good ones with more weight.

    The weight of a sample is exp(-(its cost - the lowest) / temperature), in the cost's unit.
    Source: Williams et al., ICRA 2017. Differs: several iterations for each plan.
    """
    mean, spread = start, torch.full_like(start, std)
    for _ in range(iterations):
        candidates = sample_around(mean, spread, samples, generator)
        costs = cost(candidates)
        weights = (-(costs - costs.amin(1, keepdim=True)) / temperature).softmax(1)
        mean = (weights[..., None, None] * candidates).sum(1)
    return Plan(mean, candidates, costs)
