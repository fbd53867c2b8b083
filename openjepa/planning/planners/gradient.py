"""Plan by gradient descent through the model.   B tasks  S starts  H steps  A action's width"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.planning.planners.plan import Cost, Plan, sample_around


def gradient(
    cost: Cost,
    start: Float[Tensor, "B H A"],
    generator: torch.Generator,
    *,
    samples: int = 4,
    iterations: int = 30,
    std: float = 0.5,
    lr: float = 0.1,
) -> Plan:
    """Minimize a differentiable cost over sequences of actions by Adam, from several starts; the best one wins."""
    candidates = sample_around(start, torch.full_like(start, std), samples, generator).requires_grad_()
    optimizer = torch.optim.Adam([candidates], lr=lr)
    with torch.enable_grad():
        for _ in range(iterations):
            optimizer.zero_grad()
            cost(candidates).sum().backward()
            optimizer.step()
    final = candidates.detach()
    with torch.no_grad():
        costs = cost(final)
    best = costs.argmin(1)
    return Plan(final[torch.arange(len(final)), best], final, costs)
