"""Spend mode 2 only where mode 1 is likely to fail, judged by the critic.   B tasks"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from openjepa.planning.actors.decision import Decision, Situation
from openjepa.planning.actors.planning import PlanningActor
from openjepa.planning.actors.policy import PolicyActor


@dataclass
class AdaptiveActor:
    """Act by the policy; plan for tasks whose value did not fall as the critic had promised.

    An action of a good policy lowers the value by about 1. A task is planned for while its value fell by less than
    `progress` of that over the last `steps` records of the memory.
    Source: LeCun 2022, section 3.1.3.
    """

    policy: PolicyActor
    planning: PlanningActor
    steps: int = 5
    progress: float = 0.4
    planned: Bool[Tensor, "B"] | None = None

    def __call__(self, now: Situation) -> Decision:
        fast = self.policy(now)
        begins = self.planning.plan is None or self.planning.step == self.planning.replan
        if begins:
            self.planned = self.is_failing(now)
        assert self.planned is not None
        if begins and not self.planned.any():
            self.planning.plan = None
            return fast
        slow = self.planning(now)
        action = torch.where(self.planned[:, None], slow.action, fast.action)
        return Decision(action, torch.where(self.planned, slow.imagined_steps, 0))

    def is_failing(self, now: Situation) -> Bool[Tensor, "B"]:
        """Return which tasks came less near to their goal than the critic had promised."""
        if len(now.memory.rows) < self.steps:
            return torch.zeros_like(now.value, dtype=torch.bool)
        before = now.memory.read(self.steps).cost[:, 0]
        return before - now.value < self.progress * self.steps
