"""Mode 2: plan in the world model, act, plan again.   B tasks  H steps  A action's width"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.planning.actors.decision import Decision, Situation
from openjepa.planning.planners.plan import Cost, Plan, Planner, shift_plan


@dataclass
class PlanningActor:
    """Plan a sequence of actions, take the first `replan` of them, and plan again from the rest.

    Source: LeCun 2022, section 3.1.2: receding-horizon model predictive control.
    """

    cost_from: Callable[[Tensor], Cost]  # of a latent: the cost of sequences of actions that start there
    planner: Planner
    action_dim: int
    generator: torch.Generator
    horizon: int = 8
    replan: int = 4
    plan: Plan | None = None
    step: int = 0  # of the plan

    def __call__(self, now: Situation) -> Decision:
        imagined = 0
        if self.plan is None or self.step == self.replan:
            self.plan, imagined = self.make_plan(now.state)
            self.step = 0
        self.step += 1
        return Decision(self.plan.actions[:, self.step - 1], torch.full((len(now.state),), imagined))

    def make_plan(self, state: Float[Tensor, "B N D"]) -> tuple[Plan, int]:
        """Plan from the rest of the last plan, or from standing still; return the imagined steps of a task, too."""
        start = state.new_zeros(len(state), self.horizon, self.action_dim)
        if self.plan is not None:
            start = shift_plan(self.plan.actions, self.step)
        cost, imagined = self.cost_from(state), 0

        def counted(actions: Float[Tensor, "B S H A"]) -> Float[Tensor, "B S"]:
            nonlocal imagined
            imagined += actions.shape[1] * actions.shape[2]
            return cost(actions)

        return self.planner(counted, start, self.generator), imagined
