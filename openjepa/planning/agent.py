"""An agent: perception, an actor that knows a world model and costs, and a short-term memory.   B tasks  A action"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from openjepa.nn.locator import Location
from openjepa.nn.world import World
from openjepa.planning.actor import Actor
from openjepa.planning.costs import FinalCost
from openjepa.planning.memory import Memory
from openjepa.planning.perception import Perception


class Agent:
    """See, act, remember. The configurator chooses the parts for a task.

    Source: LeCun 2022, figure 2.
    """

    def __init__(self, perception: Perception, world: World, actor: Actor, cost: FinalCost, memory: Memory):
        self.perception, self.world, self.actor, self.cost, self.memory = perception, world, actor, cost, memory
        self.time = 0.0

    def __call__(self, observation: Tensor) -> Float[Tensor, "B A"]:
        """Choose an action for each task, and record it with the state and its cost."""
        state = self.perception(observation)
        action = self.actor(state)
        where: Location = self.world.locate(state)
        self.memory.write(self.time, where.summary, action, self.cost(where)[:, 0])
        self.time += 1
        return action
