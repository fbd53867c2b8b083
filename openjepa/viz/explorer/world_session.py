"""What the page about a world model computes: an agent that goes where it is told, under costs that can change.

T steps so far
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.data.synthetic.rooms import read_pixels
from openjepa.planning.actors.planning import PlanningActor
from openjepa.planning.agent import Agent
from openjepa.planning.configurator import AgentSettings, Task
from openjepa.planning.costs import StepCost, effort
from openjepa.planning.diagnosis import Decoder, fit_decoder
from openjepa.planning.envs.rooms import RoomEnv, draw_tasks
from openjepa.planning.settings import Mode
from openjepa.planning.success import ZONE_WEIGHT
from openjepa.planning.systems import RoomSystem, load_room_system, require_one_level
from openjepa.planning.zones import RADIUS, Zones
from openjepa.viz.canvas import RGBImage
from openjepa.viz.world_maps import paint_room

EFFORT_WEIGHT = 0.2  # steps for each squared pixel of an action


class WorldSession:
    """One room with an agent: choose a goal, a forbidden zone, a mode and weights; advance step by step."""

    def __init__(self, system: RoomSystem, decoder: Decoder, seed: int = 0):
        self.system, self.decoder = system, decoder
        self.mode: Mode = "2"
        self.zone: tuple[float, float] | None = None
        self.save_effort = False
        self.start_room(seed)

    @classmethod
    def load(cls, run: str, seed: int) -> WorldSession:
        """Load a run. Raises UserError if it is no world model of rooms."""
        system = load_room_system(run)
        require_one_level(system, run)
        return cls(system, fit_decoder(system.world, system.modality, system.env), seed)

    def start_room(self, seed: int) -> None:
        """Go to another layout that never occurs in training."""
        self.seed = seed
        self.env = RoomEnv(draw_tasks(self.system.env, 1, seed))
        self.path = [self.env.position]
        self.zone = None
        self.configure()

    def set_goal(self, x: float, y: float) -> None:
        """Make a position the goal. Raises UserError if it is in a wall."""
        goal = torch.tensor([[x, y]])
        side = self.env.tasks.rooms.wall.shape[-1]
        if not (0 < x < side and 0 < y < side) or read_pixels(self.env.tasks.rooms.wall, goal).any():
            raise UserError("a goal cannot be in a wall: click a free position")
        self.env.tasks = self.env.tasks._replace(start=self.env.position, goal=goal)
        self.path = [self.env.position]
        self.configure()

    def configure(self) -> None:
        """Let the configurator build the agent for the present goal, costs and mode."""
        configurator = self.system.configurator(self.seed)
        costs: dict[str, StepCost] = {"effort": effort}
        weights = {"effort": EFFORT_WEIGHT * self.save_effort}
        if self.zone is not None:
            zones = Zones(torch.tensor([self.zone]), torch.ones(1, dtype=torch.bool))
            costs["zone"] = zones.cost(self.decoder.probe)
            weights["zone"] = ZONE_WEIGHT
        task = Task(self.env.tasks.goal_frames(), weights)
        with torch.no_grad():
            self.agent: Agent = dataclasses.replace(configurator, costs=costs)(task, AgentSettings(mode=self.mode))

    @torch.no_grad()
    def advance(self) -> bool:
        """Act once; return whether the goal is reached."""
        if not self.env.reached().all():
            self.env.step(self.agent(self.env.observe()))
            self.path.append(self.env.position)
        return bool(self.env.reached().all())

    def picture(self) -> RGBImage:
        """Draw the room, the path so far, agent, goal and zone."""
        wall, goal = self.env.tasks.rooms.wall[0].numpy(), self.env.tasks.goal[0].numpy()
        zone = None if self.zone is None else (*self.zone, RADIUS)
        return paint_room(wall, torch.cat(self.path).numpy(), goal, zone, self.imagined())

    @torch.no_grad()
    def imagined(self) -> Float[np.ndarray, "T 2"] | None:
        """Return the positions that the rest of the plan leads to in imagination; None without a plan."""
        planning = self.agent.actor
        if not isinstance(planning, PlanningActor) or planning.plan is None or planning.step >= planning.horizon:
            return None
        state = self.agent.perception(self.env.observe())
        states = self.system.world.unroll(
            state, self.system.configurator(0).limit(planning.plan.actions[:, planning.step :])
        )
        return torch.cat([self.env.position, self.decode(states[0])]).numpy()

    def decode(self, states: Tensor) -> Tensor:
        return self.decoder.position(states)

    def describe(self) -> str:
        """Return where the agent stands, in one line."""
        steps = len(self.path) - 1
        if not steps:
            return "click a position: the agent goes there"
        if self.env.reached().all():
            return f"reached at step {steps}: click another position"
        return f"step {steps}; the critic expects {self.agent.memory.read(1).cost[0, 0].item():.0f} more"
