"""Mode 1: a policy that reacts without imagining anything.   B tasks  N cells  P pushes  A action's width"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.methods.actor import ActingWorld
from openjepa.nn.value_iteration import GoalField
from openjepa.planning.actors.decision import Decision, Situation


@dataclass
class PolicyActor:
    """Draw a push from the policy at `sharpness` times its logits.

    The most probable push alone would repeat a cycle for ever; a drawn one leaves it. Where the memory has seen the
    present state often, logits count less.
    Source: LeCun 2022, section 3.1.1 (mode 1).
    """

    world: ActingWorld
    field: GoalField  # of the goal, as the policy reads it
    pushes: Float[Tensor, "P A"]
    generator: torch.Generator
    sharpness: float = 2.0
    radius: float = 0.1  # of summaries that count as the same state

    def __call__(self, now: Situation) -> Decision:
        logits = self.world.logits(self.field, now.where)[:, 0, 0]
        visits = now.memory.visits(now.where.summary, self.radius)
        sharp = self.sharpness / (1 + visits)
        push = (sharp[:, None] * logits).softmax(1).multinomial(1, generator=self.generator)[:, 0]
        return Decision(self.pushes[push], torch.zeros(len(logits), dtype=torch.long))
