"""An agent: perception, critic, actor and short-term memory.   B tasks  A action's width"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.nn.world import World
from openjepa.planning.actors.decision import Actor, Situation
from openjepa.planning.costs import StateCost
from openjepa.planning.memory import Memory
from openjepa.planning.perception import Perception


class Agent:
    """See, judge, act, remember. The configurator chooses the parts for a task.

    Source: LeCun 2022, figure 2.
    """

    def __init__(self, perception: Perception, world: World, critic: StateCost, actor: Actor, memory: Memory):
        self.perception, self.world, self.critic, self.actor, self.memory = perception, world, critic, actor, memory
        self.imagined_steps: list[Int[Tensor, "B"]] = []  # at each step

    def __call__(self, observation: Tensor) -> Float[Tensor, "B A"]:
        """Choose an action for each task, and record it with the state and its value."""
        state = self.perception(observation)
        where, value = self.world.locate(state), self.critic(state)[:, 0]
        decision = self.actor(Situation(state, where, value, self.memory))
        self.memory.write(float(len(self.imagined_steps)), where.summary, decision.action, value)
        self.imagined_steps.append(decision.imagined_steps)
        return decision.action


def count_imagined_steps(imagined: list[Int[Tensor, "B"]], steps: Int[Tensor, "B"]) -> int:
    """Return the imagined steps of all tasks, over the first `steps` steps of each."""
    counts = torch.stack(imagined, 1)  # B T
    return int((counts * (torch.arange(counts.shape[1]) < steps[:, None])).sum())
