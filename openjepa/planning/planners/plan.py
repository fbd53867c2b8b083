"""What planners take and return.   B tasks  S sampled sequences  H steps  A action's width"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Cost = Callable[[Float[Tensor, "B S H A"]], Float[Tensor, "B S"]]  # of S sequences of actions for each of B tasks


class Plan(NamedTuple):
    """A sequence of actions for each task, and the last candidates among which it was chosen."""

    actions: Float[Tensor, "B H A"]
    candidates: Float[Tensor, "B S H A"]
    costs: Float[Tensor, "B S"]  # of the candidates


Planner = Callable[[Cost, Float[Tensor, "B H A"], torch.Generator], Plan]


def shift_plan(actions: Float[Tensor, "B H A"], steps: int) -> Float[Tensor, "B H A"]:
    """Return the plan after `steps` of its actions were taken: the rest, and its last action again, to start from."""
    return torch.cat([actions[:, steps:], actions[:, -1:].expand(-1, min(steps, actions.shape[1]), -1)], 1)


def bound_plans(planner: Planner, bound: Callable[[Tensor], Tensor]) -> Planner:
    """Return the planner with its plan within what an environment can do.

    Otherwise a plan that starts from the last one drifts so far beyond the bounds that no sample comes back.
    """

    def plan(cost: Cost, start: Float[Tensor, "B H A"], generator: torch.Generator) -> Plan:
        planned = planner(cost, start, generator)
        return planned._replace(actions=bound(planned.actions))

    return plan


SHARED = 0.5  # part of the variance of the noise that all steps of a sequence share


def sample_around(
    mean: Float[Tensor, "B H A"], std: Float[Tensor, "B H A"], samples: int, generator: torch.Generator
) -> Float[Tensor, "B S H A"]:
    """Draw sequences from a normal distribution; the first is its mean.

    Independent noise at each step would cancel out and lead nowhere; a part of it is the same for a whole sequence.
    Source: Pinneri et al., CoRL 2020, arXiv 2008.06389, for noise that is correlated over time.
    """
    batch, steps, width = mean.shape
    each = torch.randn(batch, samples, steps, width, generator=generator)
    whole = torch.randn(batch, samples, 1, width, generator=generator)
    noise = (1 - SHARED) ** 0.5 * each + SHARED**0.5 * whole
    noise[:, 0] = 0
    return mean[:, None] + std[:, None] * noise
