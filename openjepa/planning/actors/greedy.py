"""Plan one push deep: the push whose imagined end has the lowest value.   B tasks  P pushes  A action's width"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.planning.actors.decision import Decision, Situation
from openjepa.planning.planners.plan import Cost


@dataclass
class GreedyActor:
    """Choose a push of `steps` equal actions, and keep to it.

    With `noise`, values get Gumbel noise, which leaves cycles that an error of the critic would keep it in.
    """

    cost_from: Callable[[Tensor], Cost]
    pushes: Float[Tensor, "P A"]
    generator: torch.Generator
    steps: int = 3
    noise: float = 0.0
    action: Float[Tensor, "B A"] | None = None
    step: int = 0  # of the push

    def __call__(self, now: Situation) -> Decision:
        imagined = 0
        if self.action is None or self.step == self.steps:
            actions = self.pushes[:, None].expand(len(now.state), -1, self.steps, -1)
            values = self.cost_from(now.state)(actions)
            gumbel = -torch.log(-torch.log(torch.rand(values.shape, generator=self.generator)))
            self.action, self.step = self.pushes[(values - self.noise * gumbel).argmin(1)], 0
            imagined = len(self.pushes) * self.steps
        self.step += 1
        return Decision(self.action, torch.full((len(now.state),), imagined))
