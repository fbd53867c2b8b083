"""An agent that sees only nearby walls, and remembers those that it saw.   B tasks  Y X rows and columns of pixels"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from openjepa.planning.actors.planning import PlanningActor
from openjepa.planning.agent import Agent
from openjepa.planning.configurator import AgentSettings, Configurator, Task
from openjepa.planning.memory import Memory


class ExploringAgent:
    """Plan on the walls that were seen so far, as if there were no others; plan anew when more are seen.

    Perception completes what is seen by what the memory holds, and the configurator sets the other modules for the
    completed goal. Without `remember`, only the walls in view exist.
    """

    def __init__(
        self,
        configurator: Configurator,
        goal: UInt8[Tensor, "B C Y X"],
        settings: AgentSettings,
        remember: bool = True,
    ):
        self.configurator, self.goal, self.settings, self.remember = configurator, goal, settings, remember
        self.walls = torch.zeros_like(goal[:, 1])
        self.memory, self.agent = Memory(), None
        self.imagined_steps: list[Int[Tensor, "B"]] = []

    def __call__(self, observation: UInt8[Tensor, "B C Y X"]) -> Float[Tensor, "B 2"]:
        view = observation[:, 1]
        walls = torch.maximum(self.walls, view) if self.remember else view
        if self.agent is None or not torch.equal(walls, self.walls):
            self.agent = self.configure(walls)
        self.walls = walls
        return self.agent(with_walls(observation, walls))

    def configure(self, walls: UInt8[Tensor, "B Y X"]) -> Agent:
        """Return an agent for the goal among these walls that keeps the plan and the memory of the last one."""
        task = Task(with_walls(self.goal, walls))
        seed = self.configurator.seed + len(self.imagined_steps)  # otherwise each new agent would draw the same
        agent = dataclasses.replace(self.configurator, seed=seed)(task, self.settings, self.memory)
        agent.imagined_steps = self.imagined_steps
        before = self.agent and self.agent.actor
        if isinstance(before, PlanningActor) and isinstance(agent.actor, PlanningActor):
            agent.actor.plan, agent.actor.step = before.plan, before.step
        return agent


def with_walls(frames: UInt8[Tensor, "B C Y X"], walls: UInt8[Tensor, "B Y X"]) -> UInt8[Tensor, "B C Y X"]:
    """Return the frames with other walls."""
    return torch.cat([frames[:, :1], walls[:, None], frames[:, 2:]], 1)
