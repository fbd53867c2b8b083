"""Costs of imagined trajectories: intrinsic ones for each step, their weighted sum, and a critic's for what follows.

B tasks  S sampled sequences  H steps  N cells  D width of a latent  K width of its summary  A action's width
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.nn.locator import Location
from openjepa.nn.world import World
from openjepa.planning.planners.plan import Cost


class Imagined(NamedTuple):
    """What the world model imagines for sequences of actions."""

    summary: Float[Tensor, "B S H K"]  # of the latent after each action: where things are
    actions: Float[Tensor, "B S H A"]
    last: Location  # of the last latents: B · S rows


IntrinsicCost = Callable[[Imagined], Float[Tensor, "B S H"]]  # a cost for each step

FinalCost = Callable[[Location], Float[Tensor, "B S"]]  # of all that follows after the last step


def imagine(world: World, state: Float[Tensor, "B N D"], actions: Float[Tensor, "B S H A"]) -> Imagined:
    """Roll out a latent of each task under S sequences of actions."""
    batch, samples, steps, _ = actions.shape
    rows, summaries = state.repeat_interleave(samples, 0), []
    for step in range(steps):
        rows = world.dynamics(rows, actions[:, :, step].flatten(0, 1))
        where = world.locate(rows)
        summaries.append(where.summary)
    return Imagined(torch.stack(summaries, 1).unflatten(0, (batch, samples)), actions, where)


def effort(imagined: Imagined) -> Float[Tensor, "B S H"]:
    """Return the squared length of each action."""
    return imagined.actions.square().sum(-1)


def goal_distance(goal: Float[Tensor, "B K"]) -> IntrinsicCost:
    """Return the cost that is the distance of a latent's summary to that of the goal."""
    return lambda imagined: (imagined.summary - goal[:, None, None]).norm(dim=-1)


def forbidden(inside: Callable[[Float[Tensor, "B S H K"]], Float[Tensor, "B S H"]]) -> IntrinsicCost:
    """Return the cost of being in a zone: `inside` is 1 there and 0 elsewhere, or anything between."""
    return lambda imagined: inside(imagined.summary)


def weighted(costs: dict[str, IntrinsicCost], weights: dict[str, float]) -> IntrinsicCost | None:
    """Return the sum of costs with the weights that the configurator chose; None if all weights are 0.

    Raises ValueError if a weight has no cost.
    """
    if unknown := weights.keys() - costs.keys():
        raise ValueError(f"no cost is named {', '.join(sorted(unknown))}: choose of {', '.join(costs)}")
    used = [(costs[name], weight) for name, weight in weights.items() if weight]
    if not used:
        return None
    return lambda imagined: torch.stack([weight * cost(imagined) for cost, weight in used]).sum(0)


def total_cost(
    world: World, state: Float[Tensor, "B N D"], final: FinalCost, intrinsic: IntrinsicCost | None = None
) -> Cost:
    """Return the function that planners minimize: intrinsic costs on the way, then the critic's value of the end.

    Source: LeCun 2022, section 3.1.2 (mode 2).
    """

    def cost(actions: Float[Tensor, "B S H A"]) -> Float[Tensor, "B S"]:
        imagined = imagine(world, state, actions)
        value = final(imagined.last)
        return value if intrinsic is None else value + intrinsic(imagined).sum(-1)

    return cost
