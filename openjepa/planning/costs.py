"""Costs of imagined trajectories: of each state the trainable one, a critic's, and the intrinsic ones with weights.

B tasks  S sampled sequences  H steps  R rows: B · S  N cells  D width of a latent  K width of its summary  A action
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.methods.critic import ValuedWorld
from openjepa.nn.world import World
from openjepa.planning.memory import Memory
from openjepa.planning.planners.plan import Cost

StepCost = Callable[[Float[Tensor, "B S K"], Float[Tensor, "B S A"]], Float[Tensor, "B S"]]  # of one imagined step

StateCost = Callable[[Float[Tensor, "R N D"]], Float[Tensor, "B S"]]  # of a latent: how far it is from the goal

Limit = Callable[[Float[Tensor, "*B A"]], Float[Tensor, "*B A"]]  # of an action to what an environment can do


def effort(summary: Float[Tensor, "B S K"], action: Float[Tensor, "B S A"]) -> Float[Tensor, "B S"]:
    """Return the squared length of the action."""
    return action.square().sum(-1)


def goal_distance(goal: Float[Tensor, "B K"]) -> StepCost:
    """Return the cost that is the distance of a latent's summary to that of the goal."""
    return lambda summary, action: (summary - goal[:, None]).norm(dim=-1)


def forbidden(inside: Callable[[Float[Tensor, "B S K"]], Float[Tensor, "B S"]]) -> StepCost:
    """Return the cost of being in a zone: `inside` is 1 there and 0 elsewhere, or anything between."""
    return lambda summary, action: inside(summary)


def revisits(memory: Memory, radius: float = 0.5) -> StepCost:
    """Return the cost of being where the memory was: the number of records nearby, those within `radius` cells.

    It drives an agent out of a corner where the critic's errors would keep it.
    """

    def cost(summary: Float[Tensor, "B S K"], action: Float[Tensor, "B S A"]) -> Float[Tensor, "B S"]:
        if not memory.rows:
            return summary.new_zeros(summary.shape[:2])
        distance = torch.cdist(summary[..., :2], memory.read().state[..., :2])  # B S T
        return (-(distance / radius).square() / 2).exp().sum(-1)

    return cost


def weighted(costs: Mapping[str, StepCost], weights: Mapping[str, float]) -> StepCost | None:
    """Return the sum of costs with the weights that the configurator chose; None if all weights are 0.

    Raises ValueError if a weight has no cost.
    """
    if unknown := weights.keys() - costs.keys():
        raise ValueError(f"no cost is named {', '.join(sorted(unknown))}: choose of {', '.join(costs)}")
    used = [(costs[name], weight) for name, weight in weights.items() if weight]
    if not used:
        return None
    return lambda summary, action: torch.stack([weight * cost(summary, action) for cost, weight in used]).sum(0)


def latent_distance(goal: Float[Tensor, "B N D"]) -> StateCost:
    """Return the cost that knows no walls: the mean squared difference of all values of two latents."""
    return lambda state: (state.unflatten(0, (len(goal), -1)) - goal[:, None]).square().mean((2, 3))


def critic_value(world: ValuedWorld, goal: Float[Tensor, "B N D"]) -> StateCost:
    """Return the cost that the critic predicts: steps to the goal."""
    field = world.value_field(goal, len(goal))
    return lambda state: world.values(field, world.locate(state))[:, 0]


def total_cost(
    world: World,
    state: Float[Tensor, "B N D"],
    trainable: StateCost,
    intrinsic: StepCost | None = None,
    limit: Limit | None = None,
) -> Cost:
    """Return the function that planners minimize: the sum over imagined states of trainable and intrinsic cost.

    A cost of the last state alone would let an agent postpone its goal for ever, since it plans again before the end.
    Source: LeCun 2022, sections 3.1.2 and 3.2.
    """

    def cost(actions: Float[Tensor, "B S H A"]) -> Float[Tensor, "B S"]:
        actions = actions if limit is None else limit(actions)
        rows, total = state.repeat_interleave(actions.shape[1], 0), actions.new_zeros(actions.shape[:2])
        for action in actions.unbind(2):
            rows = world.step(rows, action.flatten(0, 1))
            total = total + trainable(rows)
            if intrinsic is not None:
                total = total + intrinsic(world.locate(rows).summary.unflatten(0, total.shape), action)
        return total

    return cost
