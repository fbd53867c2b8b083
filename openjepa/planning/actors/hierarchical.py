"""Mode 2 on several levels.   B tasks"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from openjepa.planning.actors.decision import Decision, Situation
from openjepa.planning.planners.hierarchical import HierarchicalPlanner


@dataclass
class HierarchicalActor:
    """Take the next action of the first level's plan, which aims at the sub-goal of the level above.

    Each task has a planner of its own, as searches differ in length.
    """

    planners: Sequence[HierarchicalPlanner]

    def __call__(self, now: Situation) -> Decision:
        actions, imagined = zip(
            *(planner(state[None]) for planner, state in zip(self.planners, now.state, strict=True)), strict=True
        )
        return Decision(torch.cat(actions), torch.tensor(imagined))
