"""Actors: from the latent of what is seen to an action. Mode 2 plans, mode 1 reacts.   B tasks  N cells  D width"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.nn.pushes import imagine_pushes
from openjepa.nn.world import World
from openjepa.planning.costs import FinalCost, IntrinsicCost, total_cost
from openjepa.planning.planners.plan import Cost, Plan, shift_plan

Planner = Callable[[Cost, Float[Tensor, "B H A"], torch.Generator], Plan]


class Actor(Protocol):
    """Choose an action for each task."""

    def __call__(self, state: Float[Tensor, "B N D"]) -> Float[Tensor, "B A"]: ...


@dataclass
class PlanningActor:
    """Mode 2: plan a sequence of actions in the world model, take the first `replan`, and plan again from the rest.

    Source: LeCun 2022, section 3.1.2: receding-horizon model predictive control.
    """

    world: World
    planner: Planner
    final: FinalCost
    intrinsic: IntrinsicCost | None
    action_dim: int
    generator: torch.Generator
    horizon: int = 8
    replan: int = 4
    plan: Plan | None = None
    taken: int = 0  # actions of the plan

    def __call__(self, state: Float[Tensor, "B N D"]) -> Float[Tensor, "B A"]:
        if self.plan is None or self.taken == self.replan:
            self.plan = self.make_plan(state)
            self.taken = 0
        self.taken += 1
        return self.plan.actions[:, self.taken - 1]

    def make_plan(self, state: Float[Tensor, "B N D"]) -> Plan:
        """Plan from the rest of the last plan, or from standing still."""
        start = state.new_zeros(len(state), self.horizon, self.action_dim)
        if self.plan is not None:
            start = shift_plan(self.plan.actions, self.taken)
        return self.planner(total_cost(self.world, state, self.final, self.intrinsic), start, self.generator)


@dataclass
class GreedyActor:
    """Take the push whose imagined end has the lowest value, and keep to it for `steps` steps: planning one push deep.

    With `noise`, values get Gumbel noise, which leaves cycles that an error of the critic would keep it in.
    """

    world: World
    final: FinalCost
    pushes: Float[Tensor, "P A"]
    generator: torch.Generator
    steps: int = 3
    noise: float = 0.0
    action: Float[Tensor, "B A"] | None = None
    taken: int = 0

    def __call__(self, state: Float[Tensor, "B N D"]) -> Float[Tensor, "B A"]:
        if self.action is None or self.taken == self.steps:
            values = self.final(imagine_pushes(self.world, state, self.pushes, (self.steps,)))
            gumbel = -torch.log(-torch.log(torch.rand(values.shape, generator=self.generator)))
            self.action, self.taken = self.pushes[(values - self.noise * gumbel).argmin(1)], 0
        self.taken += 1
        return self.action
